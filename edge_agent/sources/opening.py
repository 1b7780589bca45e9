"""Settings -> sources: those built in, and those of other installed distributions.

A distribution adds one by an entry point of the group `fedistill.sources`:

    [project.entry-points."fedistill.sources"]
    radar = "my_radar:make_source"

where `make_source(name, options, task) -> Source` reads its settings from `options`, in agent.toml the table
`[sources.NAME.options]`. Its code is loaded when a source asks for it, and runs in the worker with all of its rights:
install what you trust.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from edge_agent.sources.memory import Memory
from edge_agent.sources.settings import SourceSettings
from edge_agent.sources.source import Source, SourceError
from fd_protocol.manifest import Task

GROUP = "fedistill.sources"


def open_sources(
    settings: Mapping[str, SourceSettings], task: Task, memory: Memory, *, device: str
) -> dict[str, Source]:
    """Return the sources by name; none of them runs yet, and no library of a kind that is not asked for is loaded.

    Args:
        settings: by name of the source.
        task: what a sample is.
        memory: of files that were read.
        device: its id, part of its name at local brokers.

    Raises:
        SourceError: a source cannot be what its settings say.
        StoreError: the memory cannot be read.
    """
    return {name: _open(name, one, task, memory, device) for name, one in settings.items()}


def names() -> tuple[str, ...]:
    """Return the names of all plugins that are installed; nothing is loaded."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def _open(name: str, settings: SourceSettings, task: Task, memory: Memory, device: str) -> Source:
    if settings.directory is not None:
        from edge_agent.sources.directory import DirectorySource  # noqa: PLC0415 - see above

        return DirectorySource(name, settings.directory, task, memory.of(name))
    if settings.mqtt is not None:
        from edge_agent.sources.mqtt import MqttSource  # noqa: PLC0415

        return MqttSource(name, settings.mqtt, task, client_id=f"{device}-{name}")
    if settings.camera is not None:
        from edge_agent.sources.camera import CameraSource  # noqa: PLC0415

        return CameraSource(name, settings.camera, task)
    assert settings.plugin is not None  # a source has one kind
    return _plugin(name, settings.plugin, settings.options, task)


def _plugin(name: str, plugin: str, options: Mapping[str, Any], task: Task) -> Source:
    found = [point for point in entry_points(group=GROUP) if point.name == plugin]
    if not found:
        raise SourceError(f"no plugin {plugin!r}; there are {', '.join(names()) or 'none'}")
    if len(found) > 1:
        raise SourceError(f"plugin {plugin!r} is in {' and in '.join(map(_origin, found))}")
    return _loaded(found[0], name, options, task)


def _loaded(point: EntryPoint, name: str, options: Mapping[str, Any], task: Task) -> Source:
    """Return the source of an entry point; whatever its code raises becomes an error that names the distribution."""
    try:
        source: Source = point.load()(name, dict(options), task)
    except Exception as error:
        raise SourceError(f"plugin {point.name!r} of {_origin(point)}: {error}") from error
    if not callable(getattr(source, "run", None)):
        raise SourceError(f"plugin {point.name!r} of {_origin(point)} made no source: it has no `run`")
    return source


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
