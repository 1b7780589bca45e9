"""Rules and baselines on the same worlds."""
