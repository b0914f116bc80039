"""Win rates, length control, ranking: what judges say of policies."""
