"""Who vouches for what devices run (The Update Framework): keys, roots, targets, the server's part, the device's."""
