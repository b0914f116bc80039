"""Reports: an evaluation's as Markdown; runs and benchmarks as one HTML file, PDF and pictures."""
