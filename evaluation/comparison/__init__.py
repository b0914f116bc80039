"""Algorithms compared at equal budget over data sets and seeds: the benchmark's cells, and what their results say."""
