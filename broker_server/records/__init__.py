"""What a server remembers for people: rounds, hearings, devices, commands, and what broke a decoder."""
