"""Runs of TRL, OpenRLHF, verl, LLaMA-Factory, Axolotl and DeepSpeed, read from what they left on disk."""
