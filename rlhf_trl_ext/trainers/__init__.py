"""One algorithm, one file: its arguments and its subclass of a TRL trainer."""
