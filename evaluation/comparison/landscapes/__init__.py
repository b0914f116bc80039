"""Four reward landscapes on which algorithms are compared: the real trainers on a tiny model, many seeds."""
