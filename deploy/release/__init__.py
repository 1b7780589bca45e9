"""A release: everything that somebody else installs, in one folder, made by one command from one commit."""
