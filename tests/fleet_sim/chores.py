"""Work for processes of their own; each imports this module, so there is little in it."""

import os
import signal
import time


def count_up(limit, tell):
    for number in range(limit):
        tell(number)
    return limit, os.getpid()


def stumble(limit, tell):
    if limit == 3:
        raise ValueError("three")
    return count_up(limit, tell)


def fall(limit, _tell):
    if limit == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return limit


def tell_who(_item):
    return os.getpid()


def sleep(_item, tell):
    tell(os.getpid())
    time.sleep(600)
