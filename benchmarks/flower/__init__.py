"""Flower beside us: two apps of its kind, a deployment of real processes with TLS, and the same for ours."""
