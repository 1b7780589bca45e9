"""The device as two processes: what they tell each other, and how the supervisor sees that the worker lives."""
