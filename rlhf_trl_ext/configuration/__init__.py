"""Composing, checking and refusing configurations."""
