"""What a terminal does for the programs that it starts."""

from __future__ import annotations

import signal


def hear_ctrl_c():
    """What a shell starts in the background ignores Ctrl-C, `nohup` a terminal that closes; both hand that on."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
