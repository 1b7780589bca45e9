"""What the server may order from afar: retained state machines that survive a power cut, and their handlers."""
