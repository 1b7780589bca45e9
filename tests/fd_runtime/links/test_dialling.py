"""The way out of a closed network: real proxies in front of a real broker."""

from __future__ import annotations

import sys

import pytest

from fd_protocol.errors import InvalidValueError
from fd_runtime.links.dialling import check_proxy, dial, proxy_of
from fd_runtime.links.link import LinkDown, LinkSettings, LinkUp, Proxy, Published
from fd_runtime.links.mqtt_link import MqttLink
from fd_runtime.links.proxies import parse_proxy
from tests.support.brokers import make_fleet, needs_mosquitto, next_event
from tests.support.proxy import ConnectProxy, SocksProxy

BROKER = "broker.example"
"""No machine but the proxy knows it."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    fleet = make_fleet(tmp_path_factory.mktemp("fleet"), names=(BROKER,))
    with fleet.broker:
        yield fleet


@pytest.fixture
def connect(fleet):
    """Open links of a device to the broker, under a name that only a proxy can reach."""
    opened, proxies = [], []

    def make(kind, word="", known="", **changes):
        proxy = kind(fleet.broker.port, word)
        proxies.append(proxy)
        user, _, secret = known.partition(":")
        name = "socks5" if kind is SocksProxy else "http"
        way = Proxy(name, "127.0.0.1", proxy.port, user, secret)
        settings = LinkSettings("dev-1", BROKER, 8883, tls=fleet.identity("dev-1"), proxy=way, **changes)
        opened.append(MqttLink(settings))
        return proxy, opened[-1]

    yield make
    for one in [*opened, *proxies]:
        one.close()


@needs_mosquitto
@pytest.mark.parametrize("kind", [ConnectProxy, SocksProxy])
@pytest.mark.parametrize("word", ["", "user:p@ss w:rd"])
def test_a_device_speaks_through_a_proxy_that_alone_can_find_the_broker(connect, kind, word):
    proxy, link = connect(kind, word, known=word)
    next_event(link, LinkUp)
    token = link.publish("fd/v1/test/dev/dev-1/report", b"through")
    assert next_event(link, Published) == Published(token)
    assert proxy.asked == [f"{BROKER}:8883"]


@needs_mosquitto
@pytest.mark.parametrize(("kind", "complaint"), [(ConnectProxy, "407"), (SocksProxy, "socks5 proxy")])
def test_a_proxy_that_wants_a_word_it_was_not_told_is_named(connect, kind, complaint):
    _, link = connect(kind, "user:word", known="user:wrong")
    reason = next_event(link, LinkDown).reason
    assert complaint in reason
    assert "proxy 127.0.0.1:" in reason
    assert "wrong" not in reason


def test_a_proxy_that_is_not_there_is_named():
    with pytest.raises(ConnectionError, match=r"http proxy 127\.0\.0\.1:1: "):
        dial(BROKER, 8883, Proxy("http", "127.0.0.1", 1))


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy:8080", Proxy("http", "proxy", 8080)),
        ("https://proxy:8080", Proxy("http", "proxy", 8080)),
        ("proxy:8080", Proxy("http", "proxy", 8080)),
        ("http://proxy", Proxy("http", "proxy", 3128)),
        ("socks5h://me:a%40b@proxy", Proxy("socks5", "proxy", 1080, "me", "a@b")),
        ("http://[fd00::1]:8080", Proxy("http", "fd00::1", 8080)),
    ],
)
def test_a_url_names_a_proxy(url, proxy):
    assert parse_proxy(url) == proxy


@pytest.mark.parametrize("url", ["ftp://proxy:21", "http://", "http://user:secret@proxy:many", "socks4://proxy:1080"])
def test_what_names_no_proxy_is_refused_without_its_secret(url):
    with pytest.raises(InvalidValueError) as caught:
        parse_proxy(url)
    assert "secret" not in str(caught.value)


CHOSEN = Proxy("http", "chosen", 1, bypass="lan.example")


@pytest.mark.parametrize(
    ("host", "chosen", "environment", "expected"),
    [
        (BROKER, None, {}, None),
        (BROKER, None, {"HTTPS_PROXY": "http://p:1"}, "p"),
        (BROKER, None, {"https_proxy": "http://p:1", "ALL_PROXY": "http://q:1"}, "p"),
        (BROKER, None, {"ALL_PROXY": "socks5://q:1"}, "q"),
        (BROKER, None, {"HTTP_PROXY": "http://p:1"}, None),
        (BROKER, None, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example"}, None),
        (BROKER, CHOSEN, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example"}, "chosen"),
        ("lan.example", CHOSEN, {}, None),
        ("localhost", CHOSEN, {}, None),
        ("127.0.0.1", None, {"HTTPS_PROXY": "http://p:1"}, None),
    ],
)
def test_settings_go_before_the_environment_and_nothing_near_goes_through_a_proxy(host, chosen, environment, expected):
    proxy = proxy_of(host, chosen, environment)
    assert (proxy and proxy.host) == expected


def test_without_its_library_a_socks_proxy_is_refused_at_the_start(monkeypatch):
    monkeypatch.setitem(sys.modules, "python_socks", None)
    check_proxy(Proxy("http", "proxy", 1))
    with pytest.raises(InvalidValueError, match=r"pip install 'fedistill\[socks\]'"):
        check_proxy(Proxy("socks5", "proxy", 1))
