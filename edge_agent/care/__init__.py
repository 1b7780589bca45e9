"""How a device is, from inside and outside, and what its owner does with it: logs, a doctor, an archive, the end."""
