"""Reward functions: callable classes with a `__name__`, as TRL's trainers take them."""
