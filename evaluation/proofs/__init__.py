"""What this project says of its own code, measured: speed, memory, parity, faults, stability."""
