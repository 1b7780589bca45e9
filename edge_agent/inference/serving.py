"""Live inference as the settings describe it: what the worker opens beside its jobs, and closes at its end.

    settings, bundle, model --> predictor, watch, outputs --> loop --> local API

What is deliberately absent: sources and private store, which come from outside, and the model that trains.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edge_agent.inference.calibration import Calibration, Known, calibrate
from edge_agent.inference.drift_watch import DriftWatch
from edge_agent.inference.latency import Latency
from edge_agent.inference.loop import Loop
from edge_agent.inference.outputs.background import Background
from edge_agent.inference.outputs.discovery import HomeTopics
from edge_agent.inference.outputs.federation import ToFederation
from edge_agent.inference.outputs.json_lines import LinesFile, LinesStream
from edge_agent.inference.outputs.recent import Recent
from edge_agent.inference.predictor import Predictor
from edge_agent.inference.seams import Output, Source, Store
from edge_agent.inference.settings import STDOUT_VARIABLE
from edge_agent.process.notices import Notice
from edge_agent.settings import AgentSettings
from fd_runtime.artifacts import Bundle
from fd_runtime.models.model import F32
from fd_runtime.models.opening import LoadedModel
from fd_runtime.starting import blame

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What live inference gets from the rest of the worker.

    Attributes:
        known: what labelled rows of this device tell, for calibration; asked anew each time.
        sources: by name.
        store: keeps samples; None: nobody does.
        refresh: what else is due after a drift.
        tell: takes notices.
        alive: called at least every second.
        version: of this program.
    """

    known: Callable[[], Known]
    sources: Mapping[str, Source] = field(default_factory=dict)
    store: Store | None = None
    refresh: Callable[[], None] = lambda: None
    tell: Callable[[Notice], None] = lambda notice: None  # noqa: ARG005 - names what it is given
    alive: Callable[[], None] = lambda: None
    version: str = ""


def is_wanted(settings: AgentSettings, around: Surroundings) -> bool:
    """Whether anything would ever be predicted: there is a source, or a local API."""
    return bool(around.sources) or settings.api is not None


class Serving:
    """Live inference of a worker. It hears of weights at once, and answers nobody before `begin`. Use `serving`."""

    def __init__(self, loop: Loop | None, begin: Callable[[], None]) -> None:
        self._loop, self.begin = loop, begin

    def take_weights(self, theta: F32) -> None:
        """Answer with these parameters from now on: those of a training that was accepted, or of the checkpoint."""
        if self._loop is not None:
            self._loop.take_weights(theta)


@contextmanager
def serving(
    path: Path, settings: AgentSettings, bundle: Bundle, model: LoadedModel, around: Surroundings
) -> Iterator[Serving]:
    """Serve live samples from `begin` to the end of the block, if anybody wants that.

    Args:
        path: of the settings file, for errors.
        settings: of the device.
        bundle: that `model` was opened from.
        model: the one that trains; its backbone is shared, its tail is not.
        around: what else there is.

    Raises:
        StartError: a key of the settings is to blame; also from `begin`.
    """
    if not is_wanted(settings, around):
        yield Serving(None, lambda: None)
        return
    with ExitStack() as stack:
        loop = _loop(path, settings, bundle, model, around)
        stack.callback(loop.close)

        def begin() -> None:
            loop.start()
            if settings.api is not None:
                stack.enter_context(_api(path, settings, loop, model, around))

        yield Serving(loop, begin)


def _loop(path: Path, settings: AgentSettings, bundle: Bundle, model: LoadedModel, around: Surroundings) -> Loop:
    inference = settings.inference
    watch = None
    if inference.drift.is_watched:
        watch = DriftWatch(model.manifest, inference.drift, settings.state.folder / "drift")
    with blame(path, "model.bundle"):
        tail = bundle.open_tail(settings.model.runtime, threads=settings.model.threads)
    observe = {} if watch is None else {"observe": watch.observe}
    predictor = Predictor(model, tail, Latency(), **observe)
    loop = Loop(
        predictor,
        inference,
        sources=around.sources,
        outputs=_outputs(path, settings, around),
        store=around.store,
        watch=watch,
        calibrate=partial(_calibrate, settings, predictor, around.known),
        refresh=around.refresh,
        tell=around.tell,
        alive=around.alive,
    )
    if settings.home_assistant is not None:
        with blame(path, "home_assistant"):
            _add_home_assistant(settings, model, loop, around)
    return loop


def _calibrate(settings: AgentSettings, predictor: Predictor, known: Callable[[], Known]) -> Calibration | None:
    inference = settings.inference
    if not (inference.local_prior or inference.calibrate):
        return None
    return calibrate(known(), predictor.logits, has_prior=inference.local_prior, has_temperature=inference.calibrate)


def _outputs(path: Path, settings: AgentSettings, around: Surroundings) -> list[Output]:
    wanted = settings.outputs
    outputs: list[Output] = [Recent()]
    if wanted.file is not None:
        lines = LinesFile(wanted.file, int(wanted.file_mb * 1_000_000), wanted.files)
        outputs.append(Background("file", lines.write, lines.close))
    if wanted.stdout:
        stream = LinesStream(_standard_output())
        outputs.append(Background("stdout", stream.write, stream.close))
    if wanted.webhook is not None:
        from edge_agent.inference.outputs.webhook import Webhook  # noqa: PLC0415 - brings HTTP and TLS

        with blame(path, "outputs.webhook"):
            outputs.append(Background("webhook", Webhook(wanted.webhook).write))
    if wanted.federation:
        outputs.append(ToFederation(around.tell, wanted.federation_every_s))
    return outputs


def _standard_output() -> int:
    """The service's, if the supervisor has handed it down; else this process's own."""
    return os.dup(int(os.environ.get(STDOUT_VARIABLE, "1")))


def _add_home_assistant(settings: AgentSettings, model: LoadedModel, loop: Loop, around: Surroundings) -> None:
    from edge_agent.inference.outputs.home_assistant import HomeAssistant, Labelling  # noqa: PLC0415 - brings paho

    assert settings.home_assistant is not None
    store = around.store
    labelling = None
    if store is not None:
        labelling = Labelling(loop.label, loop.skip, lambda sample_id: store.sample(sample_id) is not None)
    device, manifest = settings.device, model.manifest
    home = HomeAssistant(
        settings.home_assistant,
        HomeTopics(device.federation, device.id, settings.home_assistant.discovery_prefix),
        manifest.task.classes,
        model=f"{manifest.name} {manifest.version}",
        version=around.version,
        labelling=labelling,
    )
    loop.add_output(home)
    loop.listeners.append(home.settle)


@contextmanager
def _api(path: Path, settings: AgentSettings, loop: Loop, model: LoadedModel, around: Surroundings) -> Iterator[None]:
    from edge_agent.api.addresses import LOOPBACK, listen_tcp, listen_unix, read_token  # noqa: PLC0415 - see below
    from edge_agent.api.routes import OPEN_PATHS, Routes  # noqa: PLC0415 - see below
    from edge_agent.api.server import ApiServer, Terms  # noqa: PLC0415 - `http.server` costs 7 MB

    api, folder = settings.api, settings.state.folder
    assert api is not None
    recent = next(output for output in loop.outputs if isinstance(output, Recent))
    routes = Routes(
        loop, recent, model.manifest.task, loop.latency, _about(settings, model, around), has_metrics=api.metrics
    )
    bounds: dict[str, Any] = {"body_bytes": api.body_bytes, "connections": api.connections}
    with ExitStack() as stack:
        with blame(path, "api.socket"):
            socket_path = api.socket_in(folder)
            local = ApiServer(listen_unix(socket_path), routes, Terms(None, ("localhost",), **bounds))
        stack.callback(socket_path.unlink, missing_ok=True)
        stack.callback(local.close)
        log.info("api: %s", socket_path)
        if api.port is not None:
            with blame(path, "api.token_file"):
                token = read_token(api.token_in(folder))
            hosts = (f"{LOOPBACK}:{api.port}", f"localhost:{api.port}")
            with blame(path, "api.port"):
                terms = Terms(token, hosts, OPEN_PATHS, **bounds)
                stack.callback(ApiServer(listen_tcp(api.port), routes, terms).close)
            log.info("api: http://%s", hosts[0])
        yield


def _about(settings: AgentSettings, model: LoadedModel, around: Surroundings) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "device": settings.device.id,
        "federation": settings.device.federation,
        "version": around.version,
        "model": f"{manifest.name} {manifest.version}",
        "bundle": manifest.digest.hex(),
        "runtime": settings.model.runtime,
        "provider": model.provider,
    }
