"""Faults on purpose: what survives a killed process."""
