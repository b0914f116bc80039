"""RLHF on Hugging Face TRL: what TRL does not have, as thin as it can be."""

__version__ = "0.1.0"
