"""A real aggregator on disk with a few hand-made devices, and the dashboard's application over its database."""

from starlette.testclient import TestClient

from broker_server.dashboard.access import Tokens
from broker_server.dashboard.app import Site, make_app
from broker_server.dashboard.guard import Access
from broker_server.dashboard.reading import ModelSize, Source, Surroundings
from broker_server.dashboard.settings import DashboardSettings
from broker_server.orders import Spool
from broker_server.settings import RoundSettings
from fd_protocol.canaries import LabelledProbes
from tests.broker_server.world import PROBES, TOPICS, World, fleet

CLASSES = ("cat", "dog", "owl")
VIEWER, OPERATOR = "viewer-token-0123456789", "operator-token-0123456789"
CANARIES = LabelledProbes((1, 4, 9, 12), (0, 1, 2, 0))


class Stage:
    """One federation, and what a browser on `127.0.0.1` sees of it."""

    def __init__(self, folder, *, settings=None, tokens=None, canaries=True, expiries=(), rounds=None):
        folder.mkdir(exist_ok=True)
        self.folder, self.spool = folder, folder / "orders"
        self.world = World(
            folder / "server.db",
            spool=Spool(self.spool),
            canaries=CANARIES if canaries else None,
            rounds=rounds or RoundSettings(quorum=2, duration_s=60, minimum_online=3, pause_s=10),
        )
        around = Surroundings(
            self.world.settings,
            CLASSES,
            ModelSize("small", 4_000, 44_000),
            has_trust_canaries=canaries,
            has_release_canaries=canaries,
        )
        self.now_s = 0.0
        self.source = Source(folder / "server.db", None, around, clock=lambda: self.world.now_ms)
        tokens = Tokens(operator=OPERATOR) if tokens is None else tokens
        self.access = Access(settings or DashboardSettings(), tokens, clock=lambda: self.now_s)
        self.app = make_app(Site(self.source, self.access, self.spool, lambda: tuple(expiries)))

    def browser(self, base_url="http://localhost", address="127.0.0.1", **headers):
        """Return a client with cookies of its own, at `address`."""
        headers = {"accept": "text/html", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return TestClient(
            self.app, base_url=base_url, client=(address, 40_000), headers=headers, follow_redirects=False
        )

    def log_in(self, token=OPERATOR, name="ada", **browser):
        """Return a browser that has logged in."""
        client = self.browser(**browser)
        answer = client.post("/login", data={"form": form_of(client.get("/login")), "token": token, "name": name})
        assert answer.status_code == 303, answer.text
        return client

    def play(self):
        """Play two rounds with a consensus and one without quorum; open one with a refusal and rubbish."""
        devices = fleet(self.world)
        a, b = devices[:2]
        for _ in range(2):
            for device in devices:
                device.contribute()
            self.world.wait(10)
        a.contribute()
        self.world.wait(61)
        self.world.wait(10)
        payload, _ = b.contribution(temperature=3.0)
        b.send(payload)
        self.world.arrive(TOPICS.upload("c"), b"rubbish")
        self.world.settle()
        a.contribute()
        return self


def form_of(answer):
    """Return the token of the form on a page."""
    return answer.text.split('name="form" value="')[1].split('"')[0]


__all__ = ["CLASSES", "OPERATOR", "PROBES", "VIEWER", "Stage", "form_of"]
