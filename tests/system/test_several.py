"""Several federations under one `broker-server run`: what happens to one does not touch the others."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.several import settings_files
from fd_protocol import codec
from fd_protocol.messages import ServerState
from fd_protocol.topics import Topics
from fd_runtime.links.link import Arrived, LinkSettings, LinkUp
from tests.broker_server.artifacts import build_artifacts
from tests.support.brokers import links, needs_mosquitto, next_event, plain_mosquitto

START_S = 120.0
RUN = [sys.executable, "-c", "import sys; from broker_server.cli import main; sys.exit(main())", "run"]


def settings(folder, federation, port):
    """Write the settings of a server that could run; return their file."""
    main(["init", str(folder), "--federation", federation, "--trust", "none"])
    path = folder / CONFIG_NAME
    text = path.read_text().replace("port = 8883", f"port = {port}")
    path.write_text(text.replace('aggregator = "aggregator"', f'aggregator = "server-of-{federation}"'))
    return path


def refused(capsys, *paths):
    arguments = [argument for path in paths for argument in ("--config", str(path))]
    code = main(["run", *arguments])
    return code, capsys.readouterr().err


def test_two_servers_in_one_folder_are_refused(tmp_path, capsys):
    first, second = settings(tmp_path / "a", "a", 1), settings(tmp_path / "b", "b", 1)
    second.write_text(second.read_text().replace('folder = "state"', f'folder = "{first.parent / "state"}"'))
    code, told = refused(capsys, first, second)
    assert code == 78
    assert f"{second}: state.folder: the same as in {first}" in told


def test_two_servers_of_one_name_at_one_broker_are_refused(tmp_path, capsys):
    first, second = settings(tmp_path / "a", "a", 1), settings(tmp_path / "b", "b", 1)
    second.write_text(second.read_text().replace("server-of-b", "server-of-a"))
    code, told = refused(capsys, first, second)
    assert code == 78
    assert f"{second}: aggregator: the same as in {first}" in told


def test_a_wrong_file_is_named_before_any_server_starts(tmp_path, capsys):
    first, second = settings(tmp_path / "a", "a", 1), settings(tmp_path / "b", "b", 1)
    second.write_text(second.read_text().replace("quorum", "quorom", 1))
    code, told = refused(capsys, first, second)
    assert code == 78
    assert f"{second}: rounds.quorom" in told


def test_a_folder_stands_for_the_settings_in_it(tmp_path):
    for name in ("b.toml", "a.toml", "notes.txt"):
        (tmp_path / name).touch()
    files = settings_files([tmp_path, Path("other.toml")])
    assert [file.name for file in files] == ["a.toml", "b.toml", "other.toml"]


def server_of(process, path):
    """Return the pid of the server with these settings."""
    for child in process.children():
        if str(path) in child.cmdline():
            return child.pid
    return None


def hear(link, *federations, online):
    """Wait until these servers, in whatever order, have said that they are there, or gone."""
    awaited = {Topics(federation).server(f"server-of-{federation}") for federation in federations}
    while awaited:
        arrived = next_event(link, Arrived, START_S)
        if codec.decode(arrived.payload, ServerState).online is online:
            awaited.discard(arrived.topic)


@pytest.mark.system
@needs_mosquitto
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_crashes_is_started_again_alone_and_all_end_with_the_first_process(tmp_path, end):
    with plain_mosquitto(tmp_path) as broker:
        paths = [settings(tmp_path / name, name, broker.port) for name in ("press", "kiln")]
        for path in paths:
            build_artifacts(path.parent)
        ears = LinkSettings("ears", subscriptions=tuple(f"{Topics(name).base}/srv/+" for name in ("press", "kiln")))
        with links(broker.port, ears) as (link,):
            next_event(link, LinkUp, START_S)
            arguments = [argument for path in paths for argument in ("--config", str(path))]
            process = psutil.Popen([*RUN, *arguments], stderr=subprocess.DEVNULL)
            try:
                hear(link, "press", "kiln", online=True)
                press, kiln = paths
                first, other = server_of(process, press), server_of(process, kiln)
                os.kill(first, signal.SIGKILL)
                hear(link, "press", online=False)
                hear(link, "press", online=True)
                assert server_of(process, press) != first
                assert server_of(process, kiln) == other
                children = process.children()
                process.send_signal(end)
                assert process.wait(START_S) == (0 if end is signal.SIGTERM else -end)
                _, alive = psutil.wait_procs(children, START_S)
                assert alive == []
            finally:
                for child in (*process.children(), process) if process.is_running() else ():
                    child.kill()
