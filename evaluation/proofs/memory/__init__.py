"""Memory: coefficients that are measured, predictions against measurements, ZeRO's share of a process."""
