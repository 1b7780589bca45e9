"""The device as processes: what they tell each other, how the supervisor sees that the worker lives, and systemd."""
