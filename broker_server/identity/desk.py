"""Takes devices in and renews their certificates: what the HTTPS port asks, without HTTP.

    device's name + token + request       --enrol-->  chain
    certificate that TLS has seen + request --renew-->  chain

Invariants:
- Whom a certificate names is decided by the token, or by the certificate that is renewed: names in a request are not
  looked at.
- A token is claimed by a key, on the disk, before anything is signed: two keys never get a certificate by one token.
- To ask again is harmless: a key whose certificate is in its first half gets the same one. By a token that it has
  used a key gets another only while the first could have lasted, and none once a certificate of it was revoked.
- What is revoked is neither renewed nor enrolled; both look at the list under the lock that a revocation takes.
- An answer is given once it is on record (`audit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from broker_server.identity.audit import Audit
from broker_server.identity.ca import Authority, CaError, RoleTakenError
from broker_server.identity.certificates import (
    Identity,
    RequestError,
    Role,
    fingerprint,
    key_of,
    name_of,
    requested_key,
    role_of,
)
from broker_server.identity.settings import EnrolmentSettings
from broker_server.identity.tokens import Token, Tokens, Verdict, judge, new_token
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.identity import check_name

REVOKED, NOT_OURS, ENDED, ANOTHER_KEY, MALFORMED = "revoked", "not_ours", "ended", "another_key", "malformed"
WRONG_ROLE = "wrong_role"


class RefusedError(FedistillError):
    """A device does not get a certificate; `reason` is one word for programs, the text says more."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Desk:
    """The desk of one authority."""

    authority: Authority
    tokens: Tokens
    audit: Audit
    days: int
    grace: timedelta

    @classmethod
    def of(cls, settings: EnrolmentSettings) -> Desk:
        """Raises: InvalidValueError: the settings name no authority."""
        authority = settings.known_authority
        tokens, audit = Tokens(authority.folder / "tokens"), Audit(authority.folder / "audit.log")
        return cls(authority, tokens, audit, settings.days, timedelta(days=settings.grace_days))

    def make_token(self, device: str, life: timedelta, *, now: datetime, who: str) -> tuple[str, Token]:
        """Return a new token for a device, in the place of the one that it had.

        Raises:
            InvalidValueError: no name, or no time.
            CaError: the name is that of an aggregator or a broker.
        """
        token, kept = new_token(check_name(device, "device"), life, now=now, who=who)
        with self.authority.locked():
            self.authority.check_role(device, Role.DEVICE)
            self.audit.write(now, "token", device, who=who)
            self.tokens.put(kept)
        return token, kept

    def enrol(self, device: str, token: str, request: bytes, *, now: datetime) -> bytes:
        """Return the PEM chain, leaf first, for a device that shows its token.

        Raises:
            RefusedError: it does not get one.
            CaError: the authority is not whole.
            OSError: it cannot be written down; nothing was given.
        """
        identity, key = _identity(device), _key(request)
        with self.authority.locked():
            kept, print_ = self.tokens.of(device), fingerprint(key)
            verdict = judge(kept, token, print_, now=now)
            if kept is None or verdict not in (Verdict.GRANTED, Verdict.AGAIN):
                raise RefusedError(verdict.value, _WORDS[verdict])
            if verdict is Verdict.AGAIN and not self._may_claim_again(kept, now):
                raise RefusedError(Verdict.USED.value, _USED_UP)
            self.tokens.claim(kept, print_)
            done = "enrolled" if verdict is Verdict.GRANTED else "claimed_again"
            return self._give(identity, key, done, now)

    def renew(self, shown: x509.Certificate, request: bytes, *, now: datetime, is_proven: bool) -> bytes:
        """Return the next PEM chain of the device that shows a certificate of ours.

        Args:
            shown: the certificate.
            request: signed by the device's key; another one than the certificate's only where that is proven.
            now: UTC.
            is_proven: TLS has seen that the device holds the certificate's key, that it is good and not revoked; if
                not, the request proves the key, and the certificate must have ended, not longer ago than the grace.

        Raises:
            RefusedError, CaError, OSError: as `enrol`.
        """
        key, name = _key(request), name_of(shown)
        with self.authority.locked():
            self._check_shown(shown, name)
            if not is_proven:
                self._check_grace(shown, key, now)
            return self._give(_identity(name), key, "renewed", now)

    def revoke(self, device: str, *, now: datetime, who: str, also: tuple[int, ...] = ()) -> int:
        """Take a device's certificates and its token back; return how many certificates it had.

        Raises:
            CaError: nothing was ever issued to it, and it had no token.
        """
        with self.authority.locked():
            self.authority.check_role(device, Role.DEVICE)
            had_token = self.tokens.take_back(device)
            try:
                count = self.authority.revoke(device, now=now, also=also)
            except CaError:
                if not had_token:
                    raise
                count = 0
            self.audit.write(now, "revoked", device, who=who, certificates=str(count))
        return count

    def _may_claim_again(self, token: Token, now: datetime) -> bool:
        """Whether the key that has claimed a token gets a certificate by it once more."""
        if self.authority.current(token.device, token.key, now=now) is not None:
            return True
        is_late = now >= token.end + timedelta(days=self.days)
        return not is_late and not self.authority.was_revoked(token.device, token.key, since=token.made)

    def _check_shown(self, shown: x509.Certificate, name: str) -> None:
        try:
            on_record = {one.serial_number: one for one in self.authority.issued(name)}
        except InvalidValueError as error:
            raise RefusedError(NOT_OURS, "the certificate names nobody whom this authority could name") from error
        if on_record.get(shown.serial_number) != shown or role_of(shown) is not Role.DEVICE:
            raise RefusedError(NOT_OURS, "the certificate is not a device's that was issued here")
        if shown.serial_number in self.authority.revoked():
            raise RefusedError(REVOKED, "the certificate was revoked")

    def _check_grace(self, shown: x509.Certificate, key: ec.EllipticCurvePublicKey, now: datetime) -> None:
        if fingerprint(key_of(shown)) != fingerprint(key):
            raise RefusedError(ANOTHER_KEY, "the request is not signed by the key of the certificate")
        if not shown.not_valid_after_utc < now <= shown.not_valid_after_utc + self.grace:
            raise RefusedError(ENDED, "the certificate has not ended, or too long ago: a new token lets the device in")

    def _give(self, identity: Identity, key: ec.EllipticCurvePublicKey, done: str, now: datetime) -> bytes:
        chain = self.authority.current(identity.name, fingerprint(key), now=now)
        if chain is None:
            try:
                chain = self.authority.sign(identity, key, now=now, days=self.days)
            except RoleTakenError as error:
                raise RefusedError(WRONG_ROLE, str(error)) from error
        serial = x509.load_pem_x509_certificates(chain)[0].serial_number
        self.audit.write(now, done, identity.name, serial=f"{serial:x}", key=fingerprint(key))
        return chain


_WORDS = {
    Verdict.UNKNOWN: "no such token for this device",
    Verdict.EXPIRED: "the token has expired",
    Verdict.USED: "the token was used already, by another key",
}
_USED_UP = "the token was used already: it is long past its time, or what it gave was revoked"


def _identity(device: str) -> Identity:
    try:
        return Identity(device, Role.DEVICE)
    except InvalidValueError as error:
        raise RefusedError(MALFORMED, str(error)) from error


def _key(request: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return requested_key(request)
    except RequestError as error:
        raise RefusedError(MALFORMED, str(error)) from error
