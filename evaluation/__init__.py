"""From samples to win rates that can be defended."""
