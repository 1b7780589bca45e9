"""Where private samples come from: folders, sensors over MQTT, cameras, and whatever other distributions add.

    settings --opening--> sources --deliver(Captured)--> whoever predicts, keeps and trains

A source records samples as the task describes them, before preprocessing: the same recordings that a workstation reads
from files (`fd_runtime.samples`, `fd_runtime.images`). Each runs in a thread of its own.
"""
