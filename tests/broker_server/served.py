"""A server that runs in a thread while a test gives orders by the command line, as another process would."""

import threading
from contextlib import contextmanager

from broker_server.orders import Spool
from fd_runtime.starting import exclusive
from tests.broker_server.world import World
from tests.support.patience import PATIENCE_S


@contextmanager
def serving(state, prepare=lambda _world: None, **arguments):
    """Run a server in the folder `state` until the block ends; `prepare` gets the world before anything is ordered."""
    stop, ready, failures = threading.Event(), threading.Event(), []
    state.mkdir(exist_ok=True)

    def serve():
        try:
            with exclusive(state / "server.lock"):
                world = World(state / "server.db", spool=Spool(state / "orders"), **arguments)
                prepare(world)
                ready.set()
                while not stop.is_set():
                    world.server.pump(0.05)
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            ready.set()

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        stop.set()
        server.join(PATIENCE_S)
        assert not server.is_alive()
    assert failures == []
