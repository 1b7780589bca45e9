"""Bundles over the air: two slots, a trial, and the way back. The device is never without a model that works."""
