"""One visit to the server for a certificate, from the key to the file; a process of its own when a device runs.

    python -m edge_agent.enrolment.errand agent.toml enrol|renew

The last line on standard output is JSON of an `Outcome`. The process brings `cryptography`, HTTP and TLS, about 40 MB,
and takes them away again: the supervisor lives for a year without.

Power may be lost at any moment: the key is on the disk before anybody hears of it, whoever has it can ask again, and
the certificate is put in its place whole.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from enum import Enum
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge_agent.configuration import load_settings
from edge_agent.enrolment.files import IdentityFiles
from edge_agent.enrolment.renewal import Due
from edge_agent.enrolment.request import KeyElsewhere, KeyInFile, RequestFailedError, WrongAnswerError, check_answer
from edge_agent.enrolment.settings import EnrolmentSettings
from edge_agent.settings import AgentSettings
from fd_protocol.errors import DecodeError, FedistillError, InvalidValueError
from fd_runtime.config import EX_CONFIG, EX_NOPERM, EX_TEMPFAIL
from fd_runtime.files import write_atomically
from fd_runtime.links.certificate import outlook
from fd_runtime.links.dialling import dial, proxy_of
from fd_runtime.links.link import Proxy
from fd_runtime.starting import exclusive

_OK = 200
_TIMEOUT_S = 30.0
_MAX_ANSWER_BYTES = 65_536
_REFUSALS = frozenset({400, 403})
_NOT_YET_VALID = 9  # X509_V_ERR_CERT_NOT_YET_VALID


class Ending(str, Enum):
    """How a visit ended; each is for the owner to know, and for the keeper to wait by."""

    DONE = "done"
    POSTPONED = "postponed"
    """Nobody there, or not now."""
    REFUSED = "refused"
    """The server will not have it so: somebody must do something."""
    CLOCK = "clock"
    """It is too early by this machine's clock."""


EXIT_CODES = {Ending.DONE: 0, Ending.POSTPONED: EX_TEMPFAIL, Ending.REFUSED: EX_NOPERM, Ending.CLOCK: EX_TEMPFAIL}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a visit, in one line; empty where there is nothing to say."""

    ending: Ending
    reason: str = ""


class NoEnrolmentError(FedistillError):
    """The settings do not say where to enrol."""

    exit_code = EX_CONFIG


def visit(settings: AgentSettings, kind: Due) -> Outcome:
    """Enrol, or renew the certificate, and put what came in its place.

    Raises:
        NoEnrolmentError: there is no `[enrolment]`.
    """
    files, enrolment = settings.identity, settings.enrolment
    if files is None or enrolment is None:
        raise NoEnrolmentError("there is no [enrolment] in the settings")
    try:
        if early := files.early_clock(_now()):
            return Outcome(Ending.CLOCK, early)
        files.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        visitor = _Visitor(settings.device.id, enrolment, files, settings.broker.way)
        with exclusive(files.lock, wait=True):
            return visitor.renew() if kind is Due.RENEW else visitor.enrol()
    except (RequestFailedError, WrongAnswerError, DecodeError, InvalidValueError) as error:
        return Outcome(Ending.REFUSED, str(error))
    except OSError as error:
        return Outcome(Ending.POSTPONED, f"{error.filename}: {error.strerror}" if error.filename else str(error))


@dataclass(frozen=True, slots=True)
class _Visitor:
    """Who makes the visit."""

    device: str
    enrolment: EnrolmentSettings
    files: IdentityFiles
    proxy: Proxy | None

    def enrol(self) -> Outcome:
        token, life = self.files.new_token(), self.files.life()
        if not token and life is not None:  # somebody else was faster
            return Outcome(Ending.DONE, f"good until {life.end:%Y-%m-%d}")
        if not token:
            where = self.files.token or "enrolment.token_file, which is not set"
            return Outcome(Ending.REFUSED, f"there is no new token in {where}: {self._another()}")
        request = self._request()
        said = {"device": self.device, "token": token, "request": request.decode("ascii", "ignore")}
        outcome = self._ask("/v1/enrol", said, request)
        if outcome.ending is Ending.DONE:
            self.files.mark_used(token)
        return outcome

    def renew(self) -> Outcome:
        chain, request = self.files.tls.certificate.read_text(encoding="ascii"), self._request()
        said = {"request": request.decode("ascii", "ignore")}
        if outlook(chain).end <= _now():  # TLS takes it no more; the server may, for a while
            return self._ask("/v1/renew", said | {"certificate": chain}, request)
        return self._ask("/v1/renew", said, request, shows=True)

    def _request(self) -> bytes:
        command = self.enrolment.request_command
        maker = KeyElsewhere(command) if command else KeyInFile()
        return maker.make(self.device, self.files.tls.key)

    def _ask(self, path: str, said: Mapping[str, str], request: bytes, *, shows: bool = False) -> Outcome:
        """Say it to the server, and keep the certificate that it gives."""
        context = ssl.create_default_context(cafile=self.enrolment.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if shows:
            context.load_cert_chain(self.files.tls.certificate, self.files.tls.key)
        try:
            status, answer = self._post(path, said, context)
        except (HTTPException, OSError) as error:
            return self._no_answer(error, shows=shows)
        chain = answer.get("certificate")
        if status != _OK or not isinstance(chain, str):
            return self._refusal(status, answer)
        check_answer(chain.encode(), request, self.device, self.enrolment.ca_file)
        write_atomically(self.files.tls.certificate, chain.encode())
        return Outcome(Ending.DONE, f"good until {outlook(chain).end:%Y-%m-%d}")

    def _post(self, path: str, said: Mapping[str, str], context: ssl.SSLContext) -> tuple[int, dict[str, Any]]:
        """Return the server's status and answer; where it answers in no way of ours, an empty one.

        A redirection is an answer like any other: a token is told to the server of the settings and to nobody else.

        Raises:
            HTTPException, OSError: nobody is there, it is not who it should be, or it breaks off.
        """
        parts = urlsplit(self.enrolment.url)
        host, port = parts.hostname or "", parts.port or 443
        connection = HTTPConnection(host, port)
        with dial(host, port, proxy_of(host, self.proxy)) as plain:
            plain.settimeout(_TIMEOUT_S)
            with context.wrap_socket(plain, server_hostname=host) as secure:
                connection.sock = secure
                headers = {"User-Agent": "edge-agent", "Content-Type": "application/json", "Connection": "close"}
                connection.request("POST", parts.path.rstrip("/") + path, json.dumps(said), headers)
                response = connection.getresponse()
                content = response.read(_MAX_ANSWER_BYTES)
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = {}
        return response.status, answer if isinstance(answer, dict) else {}

    def _refusal(self, status: int, answer: Mapping[str, Any]) -> Outcome:
        url, word = self.enrolment.url, str(answer.get("error", ""))
        text = " ".join(str(answer.get("text", f"status {status}")).split())[:200]
        if not word and status != _OK:
            return Outcome(Ending.POSTPONED, f"{url}: {text}: nobody can enrol there: is enrolment.url right?")
        if status not in _REFUSALS:
            return Outcome(Ending.POSTPONED, f"{url}: {text}")
        advice = {
            "token_used": f"was this card copied? {self._another()}",
            "revoked": f"if that was not meant: {self._another()}",
            "malformed": "the server's log says more",
            "wrong_role": "give the device another device.id",
        }.get(word, self._another())
        return Outcome(Ending.REFUSED, f"{url} refuses: {text}: {advice}")

    def _another(self) -> str:
        where = self.enrolment.token_file or "enrolment.token_file"
        return f"have a new token made (`broker-server devices token {self.device}`) and put it into {where}"

    def _no_answer(self, error: Exception, *, shows: bool) -> Outcome:
        url = self.enrolment.url
        if isinstance(error, ssl.SSLCertVerificationError):
            if error.verify_code == _NOT_YET_VALID:
                return Outcome(Ending.CLOCK, f"the clock says {_now():%Y-%m-%d}: the server's certificate begins later")
            return Outcome(Ending.POSTPONED, f"{url}: enrolment.ca_file does not vouch for it: {error.verify_message}")
        if (
            shows
            and isinstance(error, (ssl.SSLError, ConnectionError))
            and not isinstance(error, ConnectionRefusedError)
        ):
            # In TLS 1.3 a client hears of it after the handshake, or not at all.
            hint = f"it hung up, as it does on a certificate that was revoked; if so: {self._another()}"
            return Outcome(Ending.POSTPONED, f"{url}: {hint} ({error})")
        return Outcome(Ending.POSTPONED, f"{url}: {error}")


def _now() -> datetime:
    return datetime.now(timezone.utc)


def main(arguments: list[str]) -> int:
    """Make a visit and print what came of it."""
    path, kind = arguments
    os.umask(0o077)
    outcome = visit(load_settings(Path(path)), Due(kind))
    print(json.dumps(asdict(outcome)))  # noqa: T201 - what the process is for
    return EXIT_CODES[outcome.ending]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
