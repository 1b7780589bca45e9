"""What a device keeps of what it saw, and never sends: samples, labels, features, and the questions about them.

    sources, API --add, label--> store --seen_by--> worker core --> learner
                                   |--uncertain--> people, who answer by `label`

Nothing in here is part of a message: see `fd_protocol.messages` for all that is, and tests/system/test_private_data.py
for the proof.
"""
