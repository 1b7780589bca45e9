"""The server's signing key, and what it signs: documents that devices believe, beside the packages on its web server.

    state/signing.key               snapshot, timestamp, students; no passphrase, for the server signs at night
    state/releases/web/v1/tuf/      what devices ask for
    state/releases/web/v1/blobs/    packages, by digest

What is deliberately absent: the keys of root and of targets. They are where bundles are made (`model-export trust`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from broker_server.config import Config
from fd_protocol.errors import FedistillError
from fd_runtime.tuf.online import OnlineTrust
from fd_runtime.tuf.signing_keys import load_signer

TEND_S = 600.0
"""How often it is looked whether anything must be signed again."""
_WARN_S = 30 * 86_400.0

log = logging.getLogger("broker-server")


class NoSigningKeyError(FedistillError):
    """This server cannot sign."""


def online_trust(config: Config) -> OnlineTrust | None:
    """Return what this server signs with; None: it has no key.

    Raises:
        SigningKeyError: there is one, and it cannot be used.
    """
    if not config.state.signing_key.exists():
        return None
    web = config.state.releases / "web" / "v1"
    return OnlineTrust(web / "tuf", web / "blobs", load_signer(config.state.signing_key))


def needed_trust(config: Config) -> OnlineTrust:
    """Return what this server signs with.

    Raises:
        NoSigningKeyError: it has no key.
        SigningKeyError: as `online_trust`.
    """
    trust = online_trust(config)
    if trust is None:
        raise NoSigningKeyError("this server has no key to sign with: `broker-server signing-key` makes one")
    return trust


class Tending:
    """Signs again what will end, every now and then; what fails is tried again, and told."""

    def __init__(self, trust: OnlineTrust, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._trust, self._monotonic = trust, monotonic
        self._next_s = 0.0

    def turn(self, now_s: float) -> None:
        """Look, where it is time to; never raises for what is on the disk."""
        if self._monotonic() < self._next_s:
            return
        self._next_s = self._monotonic() + TEND_S
        try:
            if self._trust.tend(now_s):
                log.info("releases: signed again that these are the latest")
                self._warn(now_s)
        except (FedistillError, OSError) as error:
            log.error("releases cannot be signed again: %s", error)  # noqa: TRY400 - the line says it all

    def _warn(self, now_s: float) -> None:
        for line in endings(self._trust, now_s):
            log.warning("%s", line)


def endings(trust: OnlineTrust, now_s: float) -> list[str]:
    """Return what others must sign again soon, a line each."""
    ending = trust.ending()
    found = []
    for name, at_s, remedy in (
        ("root", ending.root_s, "model-export trust rotate"),
        ("targets", ending.targets_s, "model-export trust renew"),
    ):
        if at_s and at_s - now_s < _WARN_S:
            days = max(0, round((at_s - now_s) / 86_400))
            found.append(f"devices believe {name} for {days} days more: `{remedy}`, then `broker-server publish`")
    return found
