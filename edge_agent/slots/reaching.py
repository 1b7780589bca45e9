"""How a device trusts the server that packages and signed documents come from."""

from __future__ import annotations

import ssl

from edge_agent.settings import AgentSettings


def trust(settings: AgentSettings) -> ssl.SSLContext | None:
    """Return whom packages are taken from, if any are; the device shows its certificate, as it is now.

    None: by the system's certificates.

    Raises:
        OSError: a file is missing, or holds no certificate.
    """
    tls, ca = settings.tls, settings.releases.ca
    if settings.releases.url is None or (tls is None and ca is None):
        return None
    context = ssl.create_default_context(cafile=ca or (tls.ca if tls else None))
    if tls is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context
