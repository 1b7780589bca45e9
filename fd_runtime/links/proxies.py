"""The URL of a proxy, as settings and environments spell it."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from fd_protocol.errors import InvalidValueError
from fd_runtime.links.link import Proxy

_PORTS = {"http": 3128, "socks5": 1080}
_SCHEMES = {"http": "http", "https": "http", "socks5": "socks5", "socks5h": "socks5"}
"""HTTPS_PROXY=https://... mostly means an HTTP proxy for what is HTTPS; TLS to the proxy itself is not spoken here."""


def parse_proxy(url: str, bypass: str = "") -> Proxy:
    """Return the proxy that a URL such as `http://user:word@proxy:3128` names.

    Raises:
        InvalidValueError: it names none that we know.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError as error:
        raise InvalidValueError(f"{redacted(url)!r} is no proxy's URL") from error
    kind = _SCHEMES.get(parts.scheme)
    if kind is None or not parts.hostname:
        raise InvalidValueError(f"{redacted(url)!r} is no proxy's URL: http://HOST:PORT or socks5://HOST:PORT")
    user, word = unquote(parts.username or ""), unquote(parts.password or "")
    return Proxy("http" if kind == "http" else "socks5", parts.hostname, port or _PORTS[kind], user, word, bypass)


def redacted(url: str) -> str:
    """Return a URL without what only its owner should know."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
