"""Pure tensor mathematics: torch only, no trainer, no files."""
