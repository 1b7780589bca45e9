"""Whether devices may enrol over the HTTPS port, and with which authority."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from broker_server.identity.ca import LEAF_DAYS, MOST_GRACE_DAYS, Authority
from fd_protocol.errors import InvalidValueError


@dataclass(frozen=True, slots=True)
class EnrolmentSettings:
    """The `[enrolment]` of a federation's settings.

    Attributes:
        enabled: whether the port of `[packages]` takes devices in, and renews their certificates.
        authority: folder of `ca init`, without the root's key; None = `devices token` and `devices revoke` cannot work.
        days: that a device's certificate is good for.
        grace_days: how long after its end a device may still renew it, by its key alone; 0 = not at all.
        broker_pid_file: holds the broker's process id, so that it is told of a new revocation list (SIGHUP); None =
            somebody else sees to it (deploy/mosquitto/README.md).
    """

    enabled: bool = False
    authority: Path | None = None
    days: int = 30
    grace_days: int = 30
    broker_pid_file: Path | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.days <= LEAF_DAYS or not 0 <= self.grace_days <= MOST_GRACE_DAYS:
            raise InvalidValueError(f"days lie in 1..{LEAF_DAYS}, grace_days in 0..{MOST_GRACE_DAYS}")
        if self.enabled and self.authority is None:
            raise InvalidValueError("enabled needs authority: the folder that `broker-server ca init` made")

    @property
    def known_authority(self) -> Authority:
        """Raises: InvalidValueError: the settings name none."""
        if self.authority is None:
            raise InvalidValueError("set enrolment.authority: the folder that `broker-server ca init` made")
        return Authority(self.authority)
