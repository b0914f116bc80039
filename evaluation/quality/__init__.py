"""Metrics, failures, probes and benchmarks of one model."""
