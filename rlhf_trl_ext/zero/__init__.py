"""DeepSpeed ZeRO where TRL and accelerate leave something out."""
