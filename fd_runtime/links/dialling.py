"""A TCP connection to a broker, straight or through the proxy of a closed network.

HTTP proxies are asked with CONNECT, by the standard library, which reads the whole answer before it hands over the
socket; the two known SOCKS libraries read one piece of it and take the rest for TLS. SOCKS5 is left to `python-socks`,
which is asked for only where a proxy is one.
"""

from __future__ import annotations

import os
import socket
from base64 import b64encode
from collections.abc import Mapping

from fd_protocol.errors import InvalidValueError
from fd_runtime.links.link import Proxy
from fd_runtime.links.proxies import parse_proxy

DIAL_S = 10.0


def proxy_of(host: str, chosen: Proxy | None, environment: Mapping[str, str] = os.environ) -> Proxy | None:
    """Return the proxy on the way to `host`: the chosen one, else that of HTTPS_PROXY or ALL_PROXY; None = straight.

    Raises:
        InvalidValueError: the environment names something that is no proxy.
    """
    lower = {name.lower(): value for name, value in environment.items() if value}
    if chosen is None:
        url = lower.get("https_proxy") or lower.get("all_proxy")
        if url is None:
            return None
        chosen = parse_proxy(url, lower.get("no_proxy", ""))
    from urllib import request  # noqa: PLC0415 - with http.client and mail 1.5 MB, where there is a proxy

    near = {"no": f"localhost,127.0.0.1,::1,{chosen.bypass}"}
    is_near = request.proxy_bypass_environment(host, near)  # type: ignore[attr-defined]  # the stubs lack it
    return None if is_near else chosen


def dial(host: str, port: int, proxy: Proxy | None) -> socket.socket:
    """Return a connected socket.

    Raises:
        OSError: nobody is there, or the proxy does not want to; says who.
    """
    if proxy is None:
        return socket.create_connection((host, port), DIAL_S)
    try:
        return _through_http(host, port, proxy) if proxy.kind == "http" else _through_socks(host, port, proxy)
    except OSError as error:
        raise ConnectionError(f"{proxy}: {error}") from error


def _through_http(host: str, port: int, proxy: Proxy) -> socket.socket:
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415 - see `proxy_of`

    connection = HTTPConnection(proxy.host, proxy.port, timeout=DIAL_S)
    headers = {"Host": f"{host}:{port}"}
    if proxy.username:
        word = b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        headers["Proxy-Authorization"] = f"Basic {word}"
    connection.set_tunnel(f"[{host}]" if ":" in host else host, port, headers)
    try:
        connection.connect()
    except HTTPException as error:
        raise ConnectionError(f"{error or type(error).__name__}") from error
    sock = connection.sock
    assert isinstance(sock, socket.socket)
    return sock


def _through_socks(host: str, port: int, proxy: Proxy) -> socket.socket:
    from python_socks import ProxyError, ProxyType  # noqa: PLC0415 - most devices have no such proxy
    from python_socks.sync import Proxy as Socks  # noqa: PLC0415

    way = Socks(ProxyType.SOCKS5, proxy.host, proxy.port, proxy.username or None, proxy.password or None)
    try:
        return way.connect(host, port, timeout=DIAL_S)
    except ProxyError as error:
        raise ConnectionError(str(error)) from error


def check_proxy(proxy: Proxy | None) -> None:
    """Look whether the library for a proxy is there.

    Raises:
        InvalidValueError: it is not; says how to get it.
    """
    if proxy is None or proxy.kind == "http":
        return
    try:
        import python_socks  # noqa: F401, PLC0415
    except ImportError as error:
        raise InvalidValueError("a SOCKS proxy needs python-socks: pip install 'fedistill[socks]'") from error
