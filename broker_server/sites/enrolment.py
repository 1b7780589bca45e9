"""Enrolment over HTTPS, in front of the desk (`identity.desk`). JSON in, JSON out.

    POST /v1/enrol   {"device", "token", "request"}           -> 200 {"certificate"}    whoever has a token
    POST /v1/renew   {"request"}                                 -> 200 {"certificate"}    over mTLS
    POST /v1/renew   {"request", "certificate"}                  -> 200 {"certificate"}    where that has just ended

`request` is a PKCS #10 request in PEM, `certificate` a chain in PEM, leaf first. What is refused is answered 403
{"error": WORD, "text": ...}; 400 malformed, 429 too many refusals from one address, 503 not now: ask again.

Strangers reach this. So a body is small and must come soon, nothing is signed before a token is found good, and of
refusals no more are written down than a few a minute for each address.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone

from cryptography import x509
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker_server.core.rate import Allowances, RateTerms
from broker_server.identity.certificates import UNREADABLE
from broker_server.identity.desk import MALFORMED, Desk, RefusedError
from broker_server.sites.https import RevocationList, peer_of
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.identity import check_text

MAX_BODY_BYTES = 16_384
REFUSALS_PER_MINUTE = 60
"""Of one address: then nothing it says is looked at for a while. A factory behind one address has good tokens."""
_BAD, _FORBIDDEN, _TOO_MANY, _NOT_NOW = 400, 403, 429, 503

log = logging.getLogger("broker-server")


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True, slots=True)
class EnrolmentSite:
    """The two addresses.

    Attributes:
        desk: that says what becomes of a request.
        revocations: the authority's list.
        clock: UTC.
        refusals: what is left of each address's patience.
    """

    desk: Desk
    revocations: RevocationList
    clock: Callable[[], datetime] = utc_now
    refusals: Allowances = field(
        default_factory=lambda: Allowances(RateTerms(messages_per_minute=REFUSALS_PER_MINUTE, bytes_per_minute=0))
    )

    def routes(self) -> list[Route]:
        return [
            Route("/v1/enrol", self._answering(self._enrol), methods=["POST"]),
            Route("/v1/renew", self._answering(self._renew), methods=["POST"]),
        ]

    def _answering(self, give: Callable[[Request, dict[str, str]], bytes]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            address = request.client.host if request.client else ""
            if self.refusals.is_spent(address, _now_ms()):
                return _say(_TOO_MANY, "too_many", "too many refusals from this address: ask again in a minute")
            device = ""
            try:
                said = await _body(request)
                device = said.get("device", "")
                chain = await run_in_threadpool(give, request, said)
            except RefusedError as error:
                await run_in_threadpool(self._refused, error, address, device)
                return _say(_BAD if error.reason == MALFORMED else _FORBIDDEN, error.reason, str(error))
            except (FedistillError, OSError) as error:
                log.error("enrolment: %s", error)  # noqa: TRY400 - the trace says no more
                return _say(_NOT_NOW, "not_now", "the server cannot do it now; its log says why")
            return JSONResponse({"certificate": chain.decode()})

        return answer

    def _enrol(self, _request: Request, said: dict[str, str]) -> bytes:
        device, token, request = _texts(said, "device", "token", "request")
        return self.desk.enrol(device, token, request.encode(), now=self.clock())

    def _renew(self, request: Request, said: dict[str, str]) -> bytes:
        shown = peer_of(request, self.revocations, self.clock)
        is_proven = shown is not None
        if shown is None:
            shown = _first(_texts(said, "certificate")[0])
        return self.desk.renew(shown, _texts(said, "request")[0].encode(), now=self.clock(), is_proven=is_proven)

    def _refused(self, error: RefusedError, address: str, device: str) -> None:
        """Write down that somebody was refused, unless that address has filled enough of the record already."""
        if not self.refusals.spend(address, 0, _now_ms()):
            return
        log.warning("enrolment of %r from %s refused: %s", device[:64], address, error)
        try:
            name = check_text(device[:64], "device")
            self.desk.audit.write(self.clock(), "refused", name, reason=error.reason, address=address)
        except (InvalidValueError, OSError) as problem:
            log.warning("a refusal is not on record: %s", problem)


async def _body(request: Request) -> dict[str, str]:
    """Raises: RefusedError: no small JSON object of ASCII texts, or not in time (`patience`)."""
    try:
        said = json.loads(await _read(request))
    except (ValueError, RecursionError, ClientDisconnect) as error:
        raise RefusedError(MALFORMED, "not a small JSON object") from error
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        raise RefusedError(MALFORMED, "not a JSON object of texts")
    if not all(text.isascii() for text in said.values()):  # as names, tokens and PEM are
        raise RefusedError(MALFORMED, "a text that is not ASCII")
    return said


async def _read(request: Request) -> bytes:
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise ValueError(len(content))
    return bytes(content)


def _texts(said: dict[str, str], *names: str) -> list[str]:
    try:
        return [said[name] for name in names]
    except KeyError as error:
        raise RefusedError(MALFORMED, f"{error} is missing") from error


def _first(chain: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(chain.encode())[0]
    except UNREADABLE as error:
        raise RefusedError(MALFORMED, "no certificate in PEM that can be read") from error


def _say(status: int, error: str, text: str) -> JSONResponse:
    return JSONResponse({"error": error, "text": text}, status_code=status)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
