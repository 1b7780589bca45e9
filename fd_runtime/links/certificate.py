"""Whom a certificate names and how long it is good, read without a library: the few fields in front of everything else.

    Certificate = { tbs = { [0] version, serial, signature, issuer, validity { from, to }, subject, ... }, ... }

Nothing is verified here: TLS does that. It tells an owner when a file on the disk will stop working.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime, timezone

from fd_protocol.errors import DecodeError

_SEQUENCE, _SET, _OID, _VERSION = 0x30, 0x31, 0x06, 0xA0
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_COMMON_NAME = bytes.fromhex("550403")
_END = "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Outlook:
    """The common name in a certificate, empty where it has none, and the times between which it is good."""

    name: str
    begin: datetime
    end: datetime


def outlook(pem: str) -> Outlook:
    """Return what the first certificate in `pem` says.

    Raises:
        DecodeError: there is none, or it is damaged.
    """
    try:
        begin = pem.index("-----BEGIN CERTIFICATE-----")
        der = ssl.PEM_cert_to_DER_cert(pem[begin : pem.index(_END, begin) + len(_END)])
        (certificate,) = _children(der, _SEQUENCE)
        fields = _parts(certificate)
        tbs = _parts(fields[0][1])
        if tbs[0][0] == _VERSION:
            tbs = tbs[1:]
        _serial, _signature, _issuer, validity, subject, *_ = tbs
        starts, ends = (_time(*part) for part in _parts(validity[1]))
        return Outlook(_common_name(subject[1]), starts, ends)
    except (ValueError, IndexError) as error:
        raise DecodeError("malformed", "no certificate in PEM form") from error


def _common_name(subject: bytes) -> str:
    for relative in _children(subject, _SET):
        for attribute in _children(relative, _SEQUENCE):
            kind, value = _parts(attribute)
            if kind == (_OID, _COMMON_NAME):
                return value[1].decode("utf-8", "replace")
    return ""


def _time(tag: int, value: bytes) -> datetime:
    text = value.decode("ascii")
    if tag == _UTC_TIME:  # RFC 5280: years 50 to 99 are of the 20th century
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError(tag)
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)


def _children(data: bytes, tag: int) -> list[bytes]:
    return [value for found, value in _parts(data) if found == tag]


def _parts(data: bytes) -> list[tuple[int, bytes]]:
    """Return (tag, value) of what stands in `data`, one after the other (X.690: definite lengths)."""
    parts, at = [], 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            width = length & 0x7F
            length, at = int.from_bytes(data[at : at + width], "big"), at + width
        if at + length > len(data):
            raise ValueError("cut short")
        parts.append((tag, data[at : at + length]))
        at += length
    return parts
