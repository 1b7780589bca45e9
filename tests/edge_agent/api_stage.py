"""A local API on real sockets, over a real model, a store in memory and nothing else."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from http.client import HTTPConnection

import numpy as np

from edge_agent.api.addresses import listen_tcp, listen_unix
from edge_agent.api.client import _UnixConnection
from edge_agent.api.routes import OPEN_PATHS, Routes
from edge_agent.api.server import ApiServer, Terms
from edge_agent.inference.calibration import calibrate
from edge_agent.inference.drift_watch import DriftWatch
from edge_agent.inference.loop import Loop
from edge_agent.inference.outputs.recent import Recent
from edge_agent.inference.predictor import Predictor
from edge_agent.inference.settings import DriftSettings, InferenceSettings
from tests.edge_agent.stores import MemoryStore

NPY = "application/x-npy"
TOKEN = "t0ken-" + "x" * 32
ABOUT = {"device": "dev-1", "model": "small 1", "runtime": "onnxruntime", "provider": "cpu"}


class Api:
    """What is served, and ways to ask it."""

    def __init__(self, bundle, *, store=None, metrics=True, **terms):
        self.task = bundle.manifest.task
        self.watch = DriftWatch(bundle.manifest, DriftSettings(window=100, every_s=0.0))
        model = bundle.open("onnxruntime")
        predictor = Predictor(model, bundle.open_tail("onnxruntime"), observe=self.watch.observe)
        self.store, self.recent = store, Recent()

        def calibration():
            if store is None:
                return None
            rows = store.rows(self.task.sample_shape)

            def logits(places):
                return predictor.logits(rows.samples[places])

            return calibrate(rows, len(self.task.classes), logits, has_prior=True, has_temperature=True)

        self.loop = Loop(
            predictor, InferenceSettings(), outputs=[self.recent], store=store, watch=self.watch, calibrate=calibration
        )
        self.routes = Routes(self.loop, self.recent, self.task, predictor.latency, ABOUT, has_metrics=metrics)
        self.terms = terms

    @contextmanager
    def tcp(self):
        """Yield the port."""
        listening = listen_tcp(0)
        port = listening.getsockname()[1]
        hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        server = ApiServer(listening, self.routes, Terms(TOKEN, hosts, OPEN_PATHS, **self.terms))
        self.loop.start()
        try:
            yield port
        finally:
            server.close()
            self.loop.close()

    @contextmanager
    def unix(self, path):
        server = ApiServer(listen_unix(path), self.routes, Terms(None, ("localhost",), **self.terms))
        self.loop.start()
        try:
            yield path
        finally:
            server.close()
            self.loop.close()


def api_with_store(bundle, **options):
    return Api(bundle, store=MemoryStore(), **options)


def ask(where, method, path, body=None, kind=None, token=TOKEN, **headers):
    """Ask a port or a Unix socket; return status and what the JSON says (or the bytes)."""
    is_port = isinstance(where, int)
    connection = HTTPConnection("127.0.0.1", where, timeout=30) if is_port else _UnixConnection(where, 30)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if kind:
        sent["Content-Type"] = kind
    if token and is_port:
        sent["Authorization"] = f"Bearer {token}"
    if isinstance(body, (dict, list)):
        body, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
    try:
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    is_json = answer.headers.get("Content-Type") == "application/json"
    return answer.status, json.loads(data) if is_json else data


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def predict(where, samples, query="", **how):
    return ask(where, "POST", f"/v1/predict{query}", npy(samples), NPY, **how)
