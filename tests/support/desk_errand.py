"""One act at an authority's desk, in a process of its own: `python -m tests.support.desk_errand FOLDER ACT DEVICE ...`.

enrol TOKEN REQUEST    renew CERTIFICATE REQUEST    revoke    crl
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509

from broker_server.identity.desk import Desk, RefusedError
from broker_server.identity.settings import EnrolmentSettings

REFUSED = 3


def now() -> datetime:
    return datetime.now(timezone.utc)


def main(folder: str, act: str, device: str, *more: str) -> int:
    desk = Desk.of(EnrolmentSettings(enabled=True, authority=Path(folder)))
    try:
        match act, more:
            case "enrol", (token, request):
                desk.enrol(device, token, Path(request).read_bytes(), now=now())
            case "renew", (certificate, request):
                shown = x509.load_pem_x509_certificates(Path(certificate).read_bytes())[0]
                desk.renew(shown, Path(request).read_bytes(), now=now(), is_proven=True)
            case "revoke", ():
                desk.revoke(device, now=now(), who="test")
            case "crl", ():
                with desk.authority.locked():
                    desk.authority.renew_crl(now=now())
    except RefusedError:
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
