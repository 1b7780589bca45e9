"""Who may look and who may command: nobody gets in who should not, and no other site acts in an operator's name."""

import re

import pytest
from starlette.routing import Route

from broker_server.dashboard.access import MIN_TOKEN_CHARACTERS, SESSION_S, FormTokens, Role, Sessions, Throttle, Tokens
from broker_server.dashboard.settings import DashboardSettings, ProxySettings, ServingFiles
from broker_server.orders import Spool
from fd_protocol.errors import InvalidValueError
from tests.broker_server.dashboard.stage import OPERATOR, VIEWER, Stage, form_of

TOKENS = Tokens(viewer=VIEWER, operator=OPERATOR)
PROXY = ProxySettings(("10.0.0.7", "fd00::/8"), operators=("ann@example.org",))


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


@pytest.fixture
def closed(tmp_path):
    """One whose viewers log in."""
    (tmp_path / "viewer").write_text(VIEWER)
    return Stage(tmp_path, settings=DashboardSettings(viewer_token_file=tmp_path / "viewer"), tokens=TOKENS)


@pytest.fixture
def proxied(tmp_path):
    return Stage(tmp_path, settings=DashboardSettings(proxy=PROXY), tokens=Tokens())


def orders(stage):
    return [placed.order for placed in Spool(stage.spool).waiting()]


# Where it may listen at all.


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"host": "0.0.0.0"}, "everybody logs in"),
        ({"host": "10.0.0.1", "viewer_token_file": "t"}, "tokens travel"),
        ({"host": "10.0.0.1", "viewer_token_file": "t", "tls": ServingFiles("c", "k")}, "allowed_hosts"),
        ({"port": 0}, "a port lies in"),
        ({"allowed_hosts": ("Fleet.example:80",)}, "no host name"),
    ],
)
def test_settings_that_would_be_unsafe_do_not_exist(settings, why):
    with pytest.raises(InvalidValueError, match=why):
        DashboardSettings(**settings)


def test_off_loopback_it_stands_with_tokens_tls_and_names():
    settings = DashboardSettings(
        host="10.0.0.1", viewer_token_file="t", tls=ServingFiles("c", "k"), allowed_hosts=("fleet.example",)
    )
    assert not settings.is_open
    assert settings.is_secure


@pytest.mark.parametrize(
    "proxy", [{"addresses": ()}, {"addresses": ("all",)}, {"addresses": ("::1",), "user_header": "X Y"}]
)
def test_a_proxy_is_named_by_its_address(proxy):
    with pytest.raises(InvalidValueError):
        ProxySettings(**proxy)


def test_a_token_is_long_and_each_role_has_its_own():
    with pytest.raises(InvalidValueError, match="characters"):
        Tokens(viewer="x" * (MIN_TOKEN_CHARACTERS - 1))
    with pytest.raises(InvalidValueError, match="characters"):
        Tokens(operator="")
    with pytest.raises(InvalidValueError, match="different"):
        Tokens(VIEWER, VIEWER)
    assert Tokens().role_of("") is None
    assert (TOKENS.role_of(VIEWER), TOKENS.role_of(OPERATOR)) == (Role.VIEWER, Role.OPERATOR)
    assert TOKENS.role_of(OPERATOR + "x") is None


# Looking.


def test_on_loopback_anybody_may_look_and_nobody_commands(stage):
    page = stage.browser().get("/")
    assert page.status_code == 200
    assert 'action="/orders"' not in page.text


@pytest.mark.parametrize("header", ["x_forwarded_for", "forwarded", "via", "x_real_ip", "x_forwarded_host"])
def test_what_a_proxy_forwards_to_loopback_is_not_of_this_machine(stage, header):
    assert stage.browser(**{header: "198.51.100.9"}).get("/").status_code == 303


@pytest.mark.parametrize("host", ["http://evil.example", "http://localhost.evil.example", "http://10.0.0.1"])
def test_a_name_that_is_not_ours_is_refused(stage, host):
    assert stage.browser(host).get("/healthz").status_code == 421


@pytest.mark.parametrize("host", ["http://localhost:8089", "http://127.0.0.1:8089", "http://[::1]:8089"])
def test_every_name_of_loopback_is_ours(stage, host):
    assert stage.browser(host).get("/").status_code == 200


def test_where_viewers_log_in_nothing_is_told_before(closed):
    browser, open_to_all = closed.browser(), {"/login", "/healthz", "/readyz"}
    pages = [route.path for route in closed.app.routes if isinstance(route, Route) and "GET" in route.methods]
    for path in set(pages) - open_to_all:
        address = path.replace("{epoch}", "1").replace("{number:int}", "1").replace("{device}", "a")
        assert browser.get(address).status_code == 303, path
        assert browser.get(address, headers={"accept": "*/*"}).status_code == 401, path


def test_a_viewer_looks_and_cannot_command(closed):
    viewer = closed.log_in(VIEWER)
    page = viewer.get("/")
    assert page.status_code == 200
    answer = viewer.post("/orders", data={"form": form_of(page), "command": "pause"})
    assert answer.status_code == 403
    assert orders(closed) == []


def test_a_program_looks_with_its_token_and_cannot_post(closed):
    program = closed.browser(authorization=f"Bearer {OPERATOR}", accept="*/*")
    assert program.get("/metrics").status_code == 200
    assert program.post("/orders", data={"command": "pause"}).status_code == 403
    assert closed.browser(authorization="Bearer wrong", accept="*/*").get("/metrics").status_code == 401


# Logging in.


def test_a_wrong_token_opens_nothing(stage):
    browser = stage.browser()
    form = form_of(browser.get("/login"))
    answer = browser.post("/login", data={"form": form, "token": "wrong"})
    assert answer.status_code == 403
    assert stage.access.session_cookie not in answer.cookies


def test_who_tries_too_often_waits_and_nobody_else_does(stage):
    browser = stage.browser()
    form = form_of(browser.get("/login"))
    for _ in range(5):
        assert browser.post("/login", data={"form": form, "token": "wrong"}).status_code == 403
    late = browser.post("/login", data={"form": form, "token": OPERATOR})
    assert late.status_code == 429
    assert late.headers["retry-after"] == "300"
    assert stage.log_in(address="127.0.0.2").get("/").status_code == 200
    stage.now_s += 301
    assert browser.post("/login", data={"form": form, "token": OPERATOR}).status_code == 303


def test_a_program_that_guesses_waits_too(closed):
    for _ in range(5):
        closed.browser(authorization="Bearer wrong").get("/metrics")
    assert closed.browser(authorization=f"Bearer {VIEWER}", accept="*/*").get("/metrics").status_code == 401


def test_the_session_is_new_at_the_log_in_and_hidden_from_scripts(stage):
    browser = stage.browser()
    browser.cookies.set(stage.access.session_cookie, "chosen-by-another")
    form = form_of(browser.get("/login"))
    answer = browser.post("/login", data={"form": form, "token": OPERATOR})
    cookie = answer.headers["set-cookie"]
    assert "chosen-by-another" not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie  # plain HTTP on loopback: a browser would not send it


def test_off_loopback_a_cookie_travels_over_tls_alone(tmp_path):
    settings = DashboardSettings(
        host="10.0.0.1", viewer_token_file="t", tls=ServingFiles("c", "k"), allowed_hosts=("fleet.example",)
    )
    stage = Stage(tmp_path, settings=settings, tokens=TOKENS)
    browser = stage.browser("https://fleet.example", address="10.0.0.9")
    page = browser.get("/login")
    answer = browser.post("/login", data={"form": form_of(page), "token": VIEWER})
    assert answer.headers["set-cookie"].startswith("__Host-fedistill=")
    assert "Secure" in answer.headers["set-cookie"]
    assert answer.headers["strict-transport-security"]


def test_a_session_ends_by_itself_and_by_logging_out(stage):
    first, second = stage.log_in(), stage.log_in()
    assert 'action="/orders"' in first.get("/").text
    first.post("/logout", data={"form": form_of(first.get("/"))})
    assert 'action="/orders"' not in first.get("/").text
    assert 'action="/orders"' in second.get("/").text
    stage.now_s += SESSION_S
    assert 'action="/orders"' not in second.get("/").text


def test_a_session_that_was_left_does_not_come_back_with_its_cookie(stage):
    browser = stage.log_in()
    secret = browser.cookies[stage.access.session_cookie]
    browser.post("/logout", data={"form": form_of(browser.get("/"))})
    thief = stage.browser(cookie=f"{stage.access.session_cookie}={secret}")
    assert 'action="/orders"' not in thief.get("/").text


def test_the_oldest_session_gives_way():
    draws = iter(number.to_bytes(32, "big") for number in range(2_000))
    sessions = Sessions(lambda _count: next(draws))
    secrets = [sessions.begin("ada", Role.VIEWER, 0.0) for _ in range(1_001)]
    assert sessions.visitor(secrets[0], 1.0) is None
    assert sessions.visitor(secrets[1], 1.0) is not None


def test_a_few_failures_cost_a_wait_and_a_success_forgives_them():
    throttle = Throttle()
    for second in range(5):
        assert throttle.wait_s("10.0.0.9", second) == 0
        throttle.failed("10.0.0.9", second)
    assert throttle.wait_s("10.0.0.9", 5.0) == 295
    throttle.succeeded("10.0.0.9")
    assert throttle.wait_s("10.0.0.9", 5.0) == 0


# Commanding.


def test_an_operator_gives_an_order_and_reads_the_answer(stage):
    operator = stage.log_in(name="ada")
    answer = operator.post("/orders", data={"form": form_of(operator.get("/")), "command": "pause"})
    assert answer.status_code == 303
    (order,) = orders(stage)
    assert (order.command, order.who, order.role) == ("pause", "ada", "operator")
    assert "The order is placed." in operator.get(answer.headers["location"]).text
    stage.world.settle()
    assert stage.world.state.is_paused
    assert "The server says: paused" in operator.get(answer.headers["location"]).text
    assert "ada" in operator.get("/audit").text


def test_the_reason_of_an_abort_is_written_down(stage):
    stage.play()
    operator = stage.log_in()
    form = form_of(operator.get("/"))
    operator.post("/orders", data={"form": form, "command": "abort", "reason": "wrong probes"})
    stage.world.settle()
    assert stage.world.state.round.reason == "operator: wrong probes"


@pytest.mark.parametrize("command", ["", "forget", "pause\n"])
def test_there_are_no_other_orders(stage, command):
    operator = stage.log_in()
    assert operator.post("/orders", data={"form": form_of(operator.get("/")), "command": command}).status_code == 400
    assert orders(stage) == []


def test_an_order_that_no_record_could_hold_is_refused(stage):
    operator = stage.log_in()
    form = form_of(operator.get("/"))
    answer = operator.post("/orders", data={"form": form, "command": "abort", "reason": "two\nlines"})
    assert answer.status_code == 400
    assert orders(stage) == []


def test_every_form_needs_its_token(stage):
    operator, other = stage.log_in(), stage.log_in()
    stolen = form_of(other.get("/"))
    posts = [route.path for route in stage.app.routes if isinstance(route, Route) and "POST" in route.methods]
    assert sorted(posts) == ["/login", "/logout", "/orders"]
    for path in posts:
        for data in ({}, {"form": ""}, {"form": "0" * 64}, {"form": stolen}):
            assert operator.post(path, data={**data, "command": "pause", "token": OPERATOR}).status_code == 403, path
    assert orders(stage) == []


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
def test_a_form_from_another_site_is_refused_whatever_it_knows(stage, headers):
    operator = stage.log_in()
    data = {"form": form_of(operator.get("/")), "command": "pause"}
    assert operator.post("/orders", data=data, headers=headers).status_code == 403
    assert orders(stage) == []
    assert operator.post("/orders", data=data, headers={"origin": "http://localhost"}).status_code == 303


def test_a_long_form_is_not_read_to_its_end(stage):
    operator = stage.log_in()
    data = {"form": form_of(operator.get("/")), "command": "abort", "reason": "x" * 5_000}
    assert operator.post("/orders", data=data).status_code == 413


def test_a_forms_token_is_good_for_one_binding():
    forms = FormTokens(b"k" * 32)
    assert forms.is_valid(forms.of("a"), "a")
    assert not forms.is_valid(forms.of("a"), "b")
    assert not forms.is_valid(forms.of(""), "")
    assert not FormTokens(b"l" * 32).is_valid(forms.of("a"), "a")


# A proxy that logs people in.


def test_a_trusted_proxy_says_who_comes_and_the_settings_in_which_role(proxied):
    ann = proxied.browser(address="10.0.0.7", x_forwarded_email="ann@example.org")
    bob = proxied.browser(address="fd00::1", x_forwarded_email="bob@example.org")
    form = form_of(ann.get("/"))
    assert ann.post("/orders", data={"form": form, "command": "pause"}).status_code == 303
    assert [order.who for order in orders(proxied)] == ["ann@example.org"]
    assert bob.get("/").status_code == 200
    assert 'action="/orders"' not in bob.get("/").text
    assert bob.post("/orders", data={"form": form, "command": "resume"}).status_code == 403


@pytest.mark.parametrize("address", ["10.0.0.8", "127.0.0.1", "unix"])
def test_nobody_else_is_believed(proxied, address):
    answer = proxied.browser(address=address, x_forwarded_email="ann@example.org", accept="*/*").get("/")
    assert answer.status_code == 401


def test_two_names_are_none(proxied):
    browser = proxied.browser(address="10.0.0.7", accept="*/*")
    headers = [("x-forwarded-email", "bob@example.org"), ("x-forwarded-email", "ann@example.org")]
    assert browser.get("/", headers=headers).status_code == 401
    assert browser.get("/", headers={"x-forwarded-email": ""}).status_code == 401


# What every answer carries.


def test_every_answer_forbids_what_the_page_does_not_need(stage):
    for address in ("/", "/static/style.css", "/nothing", "/metrics", "/healthz", "/login"):
        headers = stage.browser().get(address).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "server" not in headers
        assert re.search("no-store", headers.get("cache-control", "")) or address.startswith("/static")


def test_files_outside_the_static_folder_are_not_served(stage):
    for address in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py"):
        assert stage.browser().get(address).status_code == 404
