"""Metrics of a pipeline's policies that rank a sweep."""

# As their rows in results.json have them (`_mean` left out), and shorter names of two.
DOWNSTREAM = ("win_rate", "length_controlled_win_rate", "gold_reward", "held_out_reward", "reward", "kl", "perplexity")
SHORT = {"gold": "gold_reward", "length_controlled": "length_controlled_win_rate"}
