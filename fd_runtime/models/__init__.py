"""A model's three faces on the runtimes there are, where it runs, and whether it answers there as it should."""
