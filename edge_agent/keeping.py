"""The private store in a worker: opened, tended and listened for, as long as the worker lives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

from edge_agent.private.late_labels import link_settings, listen
from edge_agent.private.store import PrivateStore
from edge_agent.private.tending import tend
from edge_agent.process.notices import Notice, PrivateRowsChanged
from edge_agent.settings import AgentSettings
from fd_protocol.manifest import Manifest
from fd_runtime.links.mqtt_link import MqttLink

_FAREWELL_S = 2.0


@contextmanager
def kept(settings: AgentSettings, manifest: Manifest, tell: Callable[[Notice], None]) -> Iterator[PrivateStore | None]:
    """Yield the device's store; None where the settings ask for none.

    `tell` hears of the rows at once, and again whenever enough of them have changed.

    Raises:
        FedistillError, OSError: it cannot be opened; see `PrivateStore.open` and `late_labels`.
    """
    if settings.store is None:
        yield None
        return
    with ExitStack() as stack:
        store = stack.enter_context(
            closing(PrivateStore.open(settings.state.private_store, settings.store, manifest, tell=tell))
        )
        stop = threading.Event()
        _start(stack, stop, tend, store, stop)
        late = settings.store.late_labels
        if late is not None:
            link = MqttLink(link_settings(late, f"{settings.device.id}-labels"))
            _start(stack, stop, listen, link, late, manifest.task, store, stop)
        tell(PrivateRowsChanged(store.epoch, len(store)))
        yield store


def _start(stack: ExitStack, stop: threading.Event, body: Callable[..., None], *arguments: object) -> None:
    """Run `body` in a thread that ends with the stack."""
    thread = threading.Thread(target=body, args=arguments, name=f"private {body.__name__}", daemon=True)
    stack.callback(thread.join, _FAREWELL_S)
    stack.callback(stop.set)
    thread.start()
