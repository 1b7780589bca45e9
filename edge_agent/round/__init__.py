"""A device's part in rounds: the core, `participant`, and what stands around it.

bytes --incoming--> event --journal--> participant --> outbox, and by `briefing` the worker
"""
