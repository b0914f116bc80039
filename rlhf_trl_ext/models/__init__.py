"""Models built or loaded by this project."""
