"""What the owner of a device may do about what keeps it from its broker."""

from __future__ import annotations

from fd_runtime.links.link import Hindrance, LinkDown

_REMEDIES = {
    Hindrance.UNREACHABLE: "see whether broker.host and broker.port are right, and whether the network, and a proxy if "
    "there is one ([broker.proxy]), let this device there",
    Hindrance.CLOCK: "set the clock, or wait until NTP has; the device connects by itself then",
    Hindrance.IDENTITY: "see [enrolment]: url, ca_file, and a token in token_file that was made for device.id; the "
    "device goes on by itself then",
    Hindrance.CERTIFICATE: "one of the certificates in [broker.tls] and at the broker has expired, was revoked, names "
    "another host than broker.host, or comes from another authority",
    Hindrance.REFUSED: "the device's certificate must bear device.id as its common name, and the broker's rules the "
    "federation",
    Hindrance.TAKEN_OVER: "another program or machine is connected under this device's id: stop it, or give it an id "
    "and a certificate of its own (broker-server ca sign), then restart the one that keeps this id",
}


def remedy(down: LinkDown) -> str:
    """Return what to do, in one line; empty = to wait is all."""
    advice = _REMEDIES.get(down.kind, "")
    if down.kind is Hindrance.TAKEN_OVER:
        return f"{advice}; this one stays away for {max(1, round(down.retry_s / 60))} min"
    return advice
