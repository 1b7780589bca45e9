"""A redacted archive of a device, for its owner to hand on: what helps to help, and nothing that is secret or private.

    summary.json    `diagnosis`: what the server gets by `diag`, in full
    settings.json   every setting and where it comes from; secrets are words, not values
    doctor.json     what `edge-agent doctor` finds, without going to the broker
    journal.json    how many events and blobs of which kind and size the memory holds; no content
    log.txt         the last lines of supervisor and worker, lines with secrets and rows of numbers cut

What is never in it: keys, certificates, blobs, the checkpoint, private rows. It is bounded: a log of at most 256 kB.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_agent.care import logs
from edge_agent.care.diagnosis import Seen, summary
from edge_agent.care.look import Look
from fd_protocol.errors import FedistillError
from fd_runtime.artifacts import load_bundle, load_public_set
from fd_runtime.files import write_atomically
from fd_runtime.findings import Finding
from fd_runtime.storage.store import Store

MAX_LOG_BYTES = 256 << 10
REDACTED = "(redacted)"
_SECRET_NAMES = re.compile(r"(?i)pass(word|wd|phrase)?$|token|secret|credential|private_key|api_key")
_QUOTED = r"""[bru]?(?P<quote>\\?["'])(?:(?!(?P=quote))(?:\\.|[^\r\n]))*(?P=quote)?"""
"""What stands between quotation marks, escaped or not, or from one to the end of the line."""
_SECRET_WORDS = re.compile(
    rf"""(?i)((?:pass(?:word|wd|phrase)?|token|secret|api[_-]?key)\\?["']?\s*[=:]\s*)(?:{_QUOTED}|(?:bearer\s+)?\S+)"""
)
_AUTHORIZATION = re.compile(rf"""(?i)(authorization\\?["']?[ \t]*[=:][ \t]*)(?:{_QUOTED}|[^\r\n]+)""")
"""A scheme and whatever that asks for: without quotation marks it is the rest of the line."""
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL)
_URL_USER = re.compile(r"(\w+://)[^/\s:@]+:[^/\s@]+@")
_LONG_SECRET = re.compile(r"\b[A-Za-z0-9+/_-]{40,}={0,2}")
_ROW = re.compile(r"(?:[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?[\s,;\[\]()]+){3,}[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
_JOURNALCTL_LINES = 500
_TAIL_PATIENCE_S = 3.0


def collect(
    seen: Look,
    values: Mapping[str, tuple[Any, str]],
    findings: Sequence[Finding],
    out: Path,
    *,
    version: str,
    now_utc_s: float,
) -> list[str]:
    """Write the archive to `out` and return the names in it.

    Args:
        seen: a look at the device.
        values: of every setting, and where it comes from.
        findings: of the doctor.
        out: the file, replaced if it is there.
        version: of the agent.
        now_utc_s: by this machine's clock.

    Raises:
        OSError: it cannot be written.
    """
    contents = {
        "summary.json": _json(summary(_seen(seen, version, now_utc_s))),
        "settings.json": _json({key: redacted_setting(key, *value) for key, value in values.items()}),
        "doctor.json": _json([{**asdict(one), "verdict": one.verdict.value} for one in findings]),
        "journal.json": _json(_journal(seen)),
        "log.txt": redacted("\n".join(_log_lines(seen)))[-MAX_LOG_BYTES:],
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.USTAR_FORMAT) as archive:
        for name, text in contents.items():
            data = text.encode()
            member = tarfile.TarInfo(f"diag-{seen.settings.device.id}/{name}")
            member.size, member.mtime, member.mode = len(data), int(now_utc_s), 0o600
            archive.addfile(member, io.BytesIO(data))
    write_atomically(out.absolute(), buffer.getvalue(), mode=0o600)
    return list(contents)


def redacted_setting(key: str, value: Any, source: str) -> dict[str, Any]:
    """Return a setting as the archive has it."""
    shown = REDACTED if _SECRET_NAMES.search(key.rpartition(".")[2]) else value
    return {"value": redacted(shown) if isinstance(shown, str) else shown, "source": source}


def redacted(text: str) -> str:
    """Return `text` without what looks like a secret or like a row of data.

    A digest of 64 hexadecimal digits goes too: nothing tells it from a key. A row is four numbers in a row, or more.
    """
    text = _PEM.sub(REDACTED, text)
    text = _URL_USER.sub(rf"\1{REDACTED}@", text)
    text = _AUTHORIZATION.sub(rf"\1{REDACTED}", text)
    text = _SECRET_WORDS.sub(rf"\1{REDACTED}", text)
    text = _ROW.sub("(numbers)", text)
    return _LONG_SECRET.sub(REDACTED, text)


def _seen(seen: Look, version: str, now_utc_s: float) -> Seen:
    model = seen.settings.model
    return Seen(
        version=version,
        state=seen.state,
        vitals=seen.standing.vitals if seen.standing is not None else None,
        runtime=model.runtime,
        bundle=_digest(lambda: load_bundle(model.bundle).digest),
        public_set=_digest(lambda: load_public_set(model.public_set).digest if model.public_set else b""),
        store=seen.settings.state.store,
        now_utc_s=now_utc_s,
        blob_bytes={one.send.payload: one.size_bytes for one in seen.waiting},
        remote=seen.remote.values,
        log_level=seen.settings.log.level,
        log_counts={},
    )


def _digest(read: Any) -> bytes:
    """Return a digest, nothing where the artifact is damaged: the doctor says so."""
    try:
        return bytes(read())
    except (FedistillError, OSError):
        return b""


def _journal(seen: Look) -> dict[str, Any]:
    if not seen.has_run:
        return {}
    with Store.view(seen.settings.state.store) as store, store.moment():
        return {**store.census(), "commands": {"open": len(seen.commands.open), "ended": len(seen.commands.ended)}}


def _log_lines(seen: Look) -> Iterator[str]:
    """Yield what a running device remembers, else what the system's journal has of it."""
    if seen.is_running and seen.standing is not None and (pid := seen.standing.vitals.pid):
        yield from _tails(seen.settings.state.folder, pid)
        return
    program = shutil.which("journalctl")
    if program is None:
        yield "the device is not running, and there is no journal here: its log is where you sent it"
        return
    command = [
        program,
        "--unit",
        "edge-agent",
        "--lines",
        str(_JOURNALCTL_LINES),
        "--no-pager",
        "--output",
        "short-iso",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    yield from done.stdout.splitlines() or ["the journal has nothing of the unit edge-agent"]


def _tails(folder: Path, pid: int) -> Iterator[str]:
    """Ask both processes for their last lines; what does not come in time is left out."""
    files = [folder / name for name in (logs.TAIL, logs.WORKER_TAIL)]
    for file in files:
        file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    end_s = time.monotonic() + _TAIL_PATIENCE_S
    while not all(file.is_file() for file in files) and time.monotonic() < end_s:
        time.sleep(0.05)
    for name, file in zip(("supervisor", "worker"), files, strict=True):
        yield f"--- {name}"
        if file.is_file():
            yield from file.read_text(encoding="utf-8", errors="replace").splitlines()
            file.unlink()


def _json(told: Any) -> str:
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"
