"""What is said of what was played. Nothing here plays anything."""
