"""What a device knows and how it learns more: samples as its model sees them, what a round is about, its weights."""
