"""Several federations in one service: a process for each, under one that starts them again.

    broker-server run --config a.toml --config b.toml
        +-- a server of a.toml: its own database, its own link, its own memory
        +-- a server of b.toml

They share nothing, so whatever becomes of one, the others go on; they end with the process that started them, however
that ends. What would make two servers disturb each other is refused before any is started.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from pathlib import Path

from broker_server.child import Child
from broker_server.config import Config
from fd_protocol.errors import InvalidValueError
from fd_runtime.config import load_toml
from fd_runtime.links.waking import Waker
from fd_runtime.starting import StartError, until_signalled

_PROGRAM = "import sys; from broker_server.cli import main; sys.exit(main())"
_WAIT_S = 3600.0


def settings_files(paths: Sequence[Path]) -> list[Path]:
    """Return the settings files that `paths` name; a folder stands for the TOML files in it."""
    return [file for path in paths for file in (sorted(path.glob("*.toml")) if path.is_dir() else [path])]


def run_several(paths: Sequence[Path]) -> None:
    """Run a server for each settings file, until SIGINT or SIGTERM.

    Raises:
        ConfigError: a file is wrong at a key.
        StartError: two of them would disturb each other.
    """
    check_apart({path: load_toml(path, Config) for path in paths})
    waker = Waker()  # an event has a lock, and the handler of a signal may come while this very thread holds it
    with ExitStack() as stack:
        stack.callback(waker.close)
        for path in paths:
            command = [sys.executable, "-c", _PROGRAM, "run", "--child", "--config", str(path.absolute())]
            child = Child(f"server of {path}", command)
            child.start()
            stack.callback(child.stop)
        until_signalled(lambda: select.select([waker], [], [], _WAIT_S), waker.wake)


def check_apart(configs: dict[Path, Config]) -> None:
    """Refuse two servers in one folder, two dashboards at one port, and two servers of one name at one broker.

    Of the last each would end the other's link, again and again.

    Raises:
        StartError: so; it names the second.
    """
    _check_unique(configs, "state.folder", lambda config: config.state.folder.resolve())
    _check_unique(configs, "dashboard.port", _dashboard_address)
    _check_unique(configs, "aggregator", lambda config: (config.broker.host, config.broker.port, config.aggregator))


def _dashboard_address(config: Config) -> Hashable:
    """Servers without a dashboard are apart from all others."""
    return config.dashboard.port if config.dashboard.enabled else config.state.folder.resolve()


def _check_unique(configs: dict[Path, Config], key: str, of: Callable[[Config], Hashable]) -> None:
    seen: dict[Hashable, Path] = {}
    for path, config in configs.items():
        other = seen.setdefault(of(config), path)
        if other is not path:
            raise StartError(path, key, InvalidValueError(f"the same as in {other}"))


def end_with_parent() -> None:
    """End this process, as if told to, when the one that holds the other end of standard input is gone."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
