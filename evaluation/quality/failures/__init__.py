"""Reward hacking and failure modes, each measured against the baseline."""
