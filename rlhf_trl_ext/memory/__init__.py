"""What a run needs of memory, from its configuration alone: per role, kind and phase, on every GPU."""
