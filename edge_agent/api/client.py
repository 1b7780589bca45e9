"""`from edge_agent import Agent`: a device, for a program of one's own.

    with Agent("agent.toml") as agent:
        said = agent.predict(frame)                 # np.ndarray, one sample or several
        if said.confidence < 0.6:
            agent.label(said.sample_id, "cat")

It speaks to the device's worker over the Unix socket of the local API, so that the model, its memory and its crashes
stay where they are supervised. A device that runs already is used; else one is started, and stopped at the end. While a
worker is being restarted, calls wait for it as long as `patience_s`.

An `Agent` belongs to one thread; make one for each.

What is deliberately absent: numpy, until there is an array. TCP and the token, which are for people and other users.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from edge_agent.api.addresses import connect_unix
from edge_agent.settings import AgentSettings
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_runtime.config import ENVIRONMENT_PREFIX, EX_UNAVAILABLE, load_toml

if TYPE_CHECKING:
    import numpy.typing as npt

_RETRY_S = 0.05
_FAREWELL_S = 12.0
_WAIT_S = 20


class AgentUnavailableError(FedistillError):
    """No device answers: it does not run, has no local API, or ended."""

    exit_code = EX_UNAVAILABLE


class AgentRefusedError(FedistillError):
    """The device does not do what was asked; says why.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, problem: str) -> None:
        self.status = status
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class Said:
    """What the model says of a sample.

    Attributes:
        probabilities: by class, in the task's order; empty where only the label was told.
        likeliest: classes and their probabilities, the likeliest first, where some were asked for.
    """

    sample_id: str
    label: str
    confidence: float
    probabilities: tuple[float, ...] = ()
    likeliest: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A sample that the model is unsure of."""

    sample_id: str
    guess: str | None
    confidence: float | None
    at_ms: int


class Agent:
    """A device. A context manager.

    Args:
        config: its settings file.
        start: whether to start the device if it does not run.
        patience_s: how long a call waits for a device that starts, or starts again.

    Raises:
        ConfigError: the settings are wrong at a key.
    """

    def __init__(self, config: Path | str, *, start: bool = True, patience_s: float = 60.0) -> None:
        self._config, self._starts, self._patience_s = Path(config), start, patience_s
        self._settings = load_toml(self._config, AgentSettings)
        api, folder = self._settings.api, self._settings.state.folder
        self._socket = api.socket_in(folder) if api is not None else folder / "api.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: HTTPConnection | None = None
        self._shape: tuple[int, ...] = ()
        self._dtype = ""

    def __enter__(self) -> Agent:
        """Reach the device.

        Raises:
            AgentUnavailableError: it does not run and is not to be started, or does not come up.
        """
        try:
            if not self._answers() and self._starts:
                self._start()
            sample = self.status()["sample"]
            self._shape, self._dtype = tuple(sample["shape"]), sample["dtype"]
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, and stop the device if it was started here."""
        self._hang_up()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_FAREWELL_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    # What a program asks for.

    def predict(self, sample: npt.ArrayLike, *, is_live: bool = True) -> Said:
        """Return what the model says of one sample.

        Args:
            sample: as recorded, before preprocessing; other numbers than the task's are converted if they fit it.
            is_live: whether it is of this device's life: kept, told to outputs, watched for drift.

        Raises:
            InvalidValueError: it is not what the task describes.
            AgentUnavailableError, AgentRefusedError: see there.
        """
        import numpy as np  # noqa: PLC0415 - whoever has no array needs none

        (said,) = self.predict_many(np.asarray(sample)[None], is_live=is_live)
        return said

    def predict_many(self, samples: npt.ArrayLike, *, is_live: bool = True) -> list[Said]:
        """Return what the model says of each of several samples, along a first axis; see `predict`."""
        import numpy as np  # noqa: PLC0415 - see `predict`

        body = io.BytesIO()
        np.save(body, self._as_samples(samples), allow_pickle=False)
        query = "" if is_live else "?live=false"
        answer = self._ask("POST", f"/v1/predict{query}", body.getvalue(), "application/x-npy")
        return [
            Said(one["sample_id"], one["label"], one["confidence"], tuple(one["probabilities"]))
            for one in answer["predictions"]
        ]

    def predict_next(self, text: str, *, top: int = 3, is_live: bool = True) -> Said:
        """Return which words are likeliest to come after `text`: `top` of them. For tasks whose tokens are words.

        Raises:
            AgentRefusedError: the task reads no words, or has not so many.
            AgentUnavailableError: see there.
        """
        query = urlencode({"top": top, "live": str(is_live).lower()})
        (one,) = self._ask("POST", f"/v1/predict?{query}", text.encode(), "text/plain")["predictions"]
        likeliest = tuple((word["label"], word["confidence"]) for word in one["likeliest"])
        return Said(one["sample_id"], one["label"], one["confidence"], likeliest=likeliest)

    def learn_text(self, text: str) -> int:
        """Let the device keep what its person wrote: a labelled sample for each word that it knows; return how many.

        Raises:
            AgentRefusedError: the task reads no words, or the text has none or too many that it knows.
            AgentUnavailableError: see there.
        """
        return len(self._ask("POST", "/v1/predict?written=true&top=1", text.encode(), "text/plain")["predictions"])

    def label(self, sample_id: str, label: str | int) -> bool:
        """Say what a sample is, by class name or number; return False where there is no such sample (any more).

        Raises:
            AgentRefusedError: the task has no such class, or the device keeps no samples.
            AgentUnavailableError: see there.
        """
        try:
            self._ask_json("/v1/label", {"sample_id": sample_id, "label": label})
        except AgentRefusedError as error:
            if error.status == 404:
                return False
            raise
        return True

    def skip(self, sample_id: str) -> bool:
        """Say that nobody can tell; return whether the sample was asked about."""
        return bool(self._ask_json("/v1/label", {"sample_id": sample_id, "skip": True})["was_asked"])

    def uncertain(self, count: int = 50) -> list[Question]:
        """Return what the model is least sure of, most pressing first."""
        asked = self._ask("GET", f"/v1/uncertain?{urlencode({'count': count})}")["asked"]
        return [Question(one["sample_id"], one["guess"], one["confidence"], one["at_ms"]) for one in asked]

    def status(self) -> dict[str, Any]:
        """Return how the device's live inference stands."""
        return self._ask("GET", "/v1/status")

    def predictions(self, *, stop: threading.Event | None = None) -> Iterator[Said]:
        """Yield live predictions of all sources as they come, from now on, until `stop` is set or nobody listens.

        Whoever is slower than the model misses some: the device keeps the last 200.
        """
        number = max((one["number"] for one in self._after(0, 0)), default=0)
        while stop is None or not stop.is_set():
            for one in self._after(number, 1 if stop is not None else _WAIT_S):
                number = one["number"]
                yield Said(one["sample_id"], one["label"], one["confidence"])

    # How it is asked.

    def _after(self, number: int, wait_s: int) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = self._ask("GET", f"/v1/predictions?after={number}&wait_s={wait_s}")["predictions"]
        return told

    def _as_samples(self, samples: npt.ArrayLike) -> npt.NDArray[Any]:
        import numpy as np  # noqa: PLC0415 - see `predict`

        given = np.asarray(samples)
        if given.shape[1:] != self._shape or given.dtype.kind not in "iuf":
            shape = list(given.shape[1:])
            raise InvalidValueError(f"a sample is {self._dtype} {list(self._shape)}, not {given.dtype} {shape}")
        with np.errstate(invalid="ignore", over="ignore"):  # what does not fit is told below
            array = given.astype(self._dtype)
        if array.dtype.kind in "iu" and not np.array_equal(array, given):
            raise InvalidValueError(f"a value is no {self._dtype}")
        return np.ascontiguousarray(array)

    def _ask_json(self, path: str, item: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask("POST", path, json.dumps(item).encode(), "application/json")

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> dict[str, Any]:
        """Return the answer. A device that is not there is asked again for a while; one that refuses is not."""
        headers = {"Content-Type": kind} if kind else {}
        end_s = time.monotonic() + self._patience_s
        while True:
            try:
                connection = self._connect()
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                data = answer.read()
            except (OSError, HTTPException) as error:
                self._hang_up()
                self._bear(error, end_s)
                continue
            if answer.status == 503 and not data:  # too many at once
                self._hang_up()
                self._bear(ConnectionError("too many connections"), end_s)
                continue
            return _item_of(answer.status, data)

    def _bear(self, error: Exception, end_s: float) -> None:
        """Wait a little, if there is any sense in it."""
        if self._process is not None and self._process.poll() is not None:
            raise AgentUnavailableError(f"the device ended with {self._process.returncode}; its log says why")
        is_hopeless = self._process is None and not self._shape and not self._socket.exists()
        if time.monotonic() >= end_s or is_hopeless:
            raise AgentUnavailableError(f"no device answers at {self._socket}: {error}") from error
        time.sleep(_RETRY_S)

    def _connect(self) -> HTTPConnection:
        if self._connection is None:
            self._connection = _UnixConnection(self._socket, self._patience_s + _WAIT_S)
        return self._connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answers(self) -> bool:
        try:
            connect_unix(self._socket, 1.0).close()
        except OSError:
            return False
        return True

    def _start(self) -> None:
        command = [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(self._config)]
        environment = {**os.environ, f"{ENVIRONMENT_PREFIX}API__SOCKET": str(self._socket)}
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)


class _UnixConnection(HTTPConnection):
    """HTTP over the Unix socket at `path`."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = connect_unix(self._path, self.timeout)


def _item_of(status: int, data: bytes) -> dict[str, Any]:
    item: dict[str, Any] = json.loads(data)
    if status >= 400:
        raise AgentRefusedError(status, str(item.get("error", f"status {status}")))
    return item
