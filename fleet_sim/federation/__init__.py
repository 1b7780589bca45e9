"""A federation in one process: its programs, their models, and who moves them on."""
