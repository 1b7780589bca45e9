"""What each address of the local API does. Bodies are JSON unless they say otherwise.

    POST /v1/predict[?live=false]       samples -> what the model says; false: of a test, not of this device's life
                    [?top=3]            the three likeliest classes instead of the probabilities of all
                    [?written=true]     of a text: each of its words, which is the label, instead of the next one
    POST /v1/label                      {"sample_id", "label"}: what it is;  {"sample_id", "skip": true}: who knows
    GET  /v1/uncertain[?count=50]       what the model is least sure of, each with a picture
    GET  /v1/predictions[?after=0&wait_s=20]   the last live predictions, numbered; waits for one
    GET  /v1/status                     how live inference stands
    GET  /metrics                       for Prometheus, where the settings say so
    GET  /, /page.js, /page.css         the page for people
    GET  /healthz                       ok

What is wrong with a request is told as {"error": "..."} with a status of HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from edge_agent.api.bodies import fields_of, samples_in
from edge_agent.api.metrics import CONTENT_TYPE, exposition
from edge_agent.api.pictures import picture_of
from edge_agent.api.server import ApiError, Request, Response
from edge_agent.inference.latency import Latency, Stage
from edge_agent.inference.loop import Loop
from edge_agent.inference.outputs.recent import Recent
from edge_agent.inference.predictor import SampleError
from edge_agent.inference.seams import Asked
from fd_protocol.manifest import Task
from fd_runtime.models.model import F32, ModelError

OPEN_PATHS = frozenset({"/", "/page.js", "/page.css", "/icon.svg", "/healthz"})
"""What holds nothing of this device."""
MOST_ASKED = 200
_LONGEST_WAIT_S = 25.0
_DIGITS = 16
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class Routes:
    """Answers requests; any thread may call it.

    Args:
        loop: live inference.
        recent: its output that the API reads.
        task: of the model.
        latency: of its stages.
        about: what does not change: names of device, bundle, runtime.
        has_metrics: whether `/metrics` answers.
    """

    def __init__(
        self,
        loop: Loop,
        recent: Recent,
        task: Task,
        latency: Latency,
        about: Mapping[str, Any],
        *,
        has_metrics: bool,
    ) -> None:
        self._loop, self._recent, self._task, self._latency, self._about = loop, recent, task, latency, about
        routes: dict[tuple[str, str], Callable[[Request], Response]] = {
            ("POST", "/v1/predict"): self._predict,
            ("POST", "/v1/label"): self._label,
            ("GET", "/v1/uncertain"): self._uncertain,
            ("GET", "/v1/predictions"): self._predictions,
            ("GET", "/v1/status"): self._status,
            ("GET", "/healthz"): lambda _: Response(b"ok\n", "text/plain; charset=utf-8"),
            **{("GET", path): _page for path in _FILES},
        }
        self._routes = routes | ({("GET", "/metrics"): self._metrics} if has_metrics else {})
        self._paths = {path for _, path in self._routes}

    def __call__(self, request: Request) -> Response:
        """Raises: ApiError: there is no such address, or the request is not what it asks for."""
        route = self._routes.get((request.method, request.path))
        if route is None:
            if request.path in self._paths:
                raise ApiError(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.path} does not take {request.method}")
            raise ApiError(HTTPStatus.NOT_FOUND, f"nothing is at {request.path[:80]}")
        return route(request)

    def status(self) -> dict[str, Any]:
        """Return what `/v1/status` tells, as plain data."""
        last = self._recent.last
        return {
            **self._about,
            "classes": list(self._task.classes),
            "sample": {"shape": list(self._task.sample_shape), "dtype": self._task.sample_dtype},
            "keeps_samples": self._loop.store is not None,
            "last": None if last is None else {"label": last.label, "confidence": last.confidence, "at_ms": last.at_ms},
            **self._loop.facts(),
        }

    def _predict(self, request: Request) -> Response:
        given = samples_in(request, self._task)
        is_live, top = _flag(request, "live", default=True), _number(request, "top", 0, len(self._task.classes))
        try:
            said = self._loop.predict(given.samples, sample_ids=given.sample_ids, labels=given.labels, is_live=is_live)
        except (SampleError, ModelError) as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, str(error)) from error
        rows = zip(said.sample_ids, said.best, said.probabilities, strict=True)
        return Response.of(
            {
                "predictions": [
                    {
                        "sample_id": sample_id,
                        "label": self._task.classes[label],
                        "confidence": confidence,
                        **self._in_full(probabilities, top),
                    }
                    for sample_id, (label, confidence), probabilities in rows
                ]
            }
        )

    def _in_full(self, probabilities: F32, top: int) -> dict[str, Any]:
        if not top:
            return {"probabilities": probabilities.tolist()}
        likeliest = (-probabilities).argsort(kind="stable")[:top].tolist()
        named = [{"label": self._task.classes[at], "confidence": float(probabilities[at])} for at in likeliest]
        return {"likeliest": named}

    def _label(self, request: Request) -> Response:
        match fields_of(request):
            case {"sample_id": str(sample_id), "skip": True}:
                self._check_store()
                return Response.of({"sample_id": sample_id, "was_asked": self._loop.skip(sample_id)})
            case {"sample_id": str(sample_id), "label": str() | int() as label} if label is not True:
                return self._take_label(sample_id, self._name_of(label))
            case _:
                raise ApiError(HTTPStatus.BAD_REQUEST, 'expected {"sample_id": "...", "label": "..."}')

    def _take_label(self, sample_id: str, label: str) -> Response:
        self._check_store()
        if not self._loop.label(sample_id, label, "api"):
            raise ApiError(HTTPStatus.NOT_FOUND, f"no sample {sample_id[:80]!r} is here (any more)")
        return Response.of({"sample_id": sample_id, "label": label})

    def _name_of(self, label: str | int) -> str:
        classes = self._task.classes
        if isinstance(label, int) and 0 <= label < len(classes):
            return classes[label]
        if label in classes:
            return str(label)
        raise ApiError(HTTPStatus.BAD_REQUEST, f"{label!r} is no class of the task")

    def _check_store(self) -> None:
        if self._loop.store is None:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "this device keeps no samples: there is no [store]")

    def _uncertain(self, request: Request) -> Response:
        count = _number(request, "count", 50, MOST_ASKED)
        store = self._loop.store
        asked = [] if store is None else store.uncertain(count)
        return Response.of({"asked": [self._question(one) for one in asked]})

    def _question(self, asked: Asked) -> dict[str, Any]:
        sample = self._loop.store.sample(asked.sample_id) if self._loop.store is not None else None
        return {
            "sample_id": asked.sample_id,
            "guess": None if asked.guess is None else self._task.classes[asked.guess],
            "confidence": asked.confidence,
            "at_ms": asked.at_ms,
            "picture": None if sample is None else picture_of(sample, self._task),
        }

    def _predictions(self, request: Request) -> Response:
        after = _number(request, "after", 0, 1 << 53)
        wait_s = min(_LONGEST_WAIT_S, _number(request, "wait_s", 0, 3600))
        told = [
            {
                "number": number,
                "sample_id": one.sample_id,
                "label": one.label,
                "confidence": one.confidence,
                "at_ms": one.at_ms,
                "source": one.source,
            }
            for number, one in self._recent.after(after, wait_s)
        ]
        return Response.of({"predictions": told})

    def _status(self, _request: Request) -> Response:
        return Response.of(self.status())

    def _metrics(self, _request: Request) -> Response:
        counts, facts = self._loop.counts, self._loop.facts()
        counters = {
            "predictions": ("Live samples predicted.", float(counts.predicted)),
            "refused_samples": ("Samples that were of no use.", float(counts.refused)),
            "dropped_samples": ("Samples that waited too long.", float(self._loop.dropped)),
            "kept_samples": ("Samples that the private store took.", float(counts.kept)),
            "labels": ("Labels given by people.", float(counts.labels)),
        }
        gauges = {"waiting_samples": ("Samples that wait for the model.", float(facts["queue"]["waiting"]))}
        drift = facts["drift"]
        if drift is not None:
            gauges["is_drifted"] = ("Whether samples are no longer what they were.", float(drift["is_drifted"]))
            for name in ("inputs", "confidence"):
                if name in drift:
                    text = f"Population stability index of {name} in the last window."
                    gauges[f"drift_{name}"] = (text, drift[name]["distance"])
        stages = {stage.name.lower(): self._latency.histogram(stage) for stage in Stage}
        return Response(exposition(counters, gauges, stages), CONTENT_TYPE)


def _page(request: Request) -> Response:
    name, kind = _FILES[request.path]
    return Response(files("edge_agent.api").joinpath("page", name).read_bytes(), kind)


def _flag(request: Request, name: str, *, default: bool) -> bool:
    value = request.query.get(name, str(default)).lower()
    if value not in ("true", "false"):
        raise ApiError(HTTPStatus.BAD_REQUEST, f"{name} is true or false, not {value[:20]!r}")
    return value == "true"


def _number(request: Request, name: str, default: int, most: int) -> int:
    value = request.query.get(name, str(default))
    if not (value.isascii() and value.isdigit() and len(value) <= _DIGITS and int(value) <= most):
        raise ApiError(HTTPStatus.BAD_REQUEST, f"{name} is a number from 0 to {most}, not {value[:20]!r}")
    return int(value)
