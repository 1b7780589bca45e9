"""Libraries that only some devices need come with an extra of the distribution; where one is missing, say which."""

from __future__ import annotations

from fd_protocol.errors import FedistillError
from fd_runtime.config import EX_CONFIG


class MissingExtraError(FedistillError):
    """What was asked for needs a library that is not installed; says how to get it."""

    exit_code = EX_CONFIG

    def __init__(self, what: str, library: str, extra: str) -> None:
        super().__init__(f"{what} need {library}: pip install 'fedistill[{extra}]'")
