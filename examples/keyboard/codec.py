"""What is left of a distribution over all words once it has travelled, and how many bytes it takes: by real codecs.

    python codec.py [--write]          after data.py and model-export build

The factory's model answers 250 places in texts of people whom no device has seen, as a device does in a round. *nats*:
mean Kullback-Leibler divergence of what arrives from what was meant; *perplexity*: of what arrives, for the word that
came next. Bodies are first ones; a later round sends differences, which are smaller.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}

import numpy as np

from fd_protocol.payload import encode_body, quantise
from fd_protocol.soft_labels import SoftLabels, soften
from fd_protocol.terms import Codec
from fd_runtime.artifacts import load_bundle
from fd_runtime.models.model import F32, I64
from fd_runtime.space import preprocessed
from fleet_sim.tables import publish, table_of
from model_export.samples import read_samples

HERE = Path(__file__).parent
PROBES = 250
CODECS = (*((codec, k) for k in (4, 8, 16, 32) for codec in (Codec.TOP_K, Codec.TOP_K_ZIPF)), (Codec.U8_SQRT, 0))


def main() -> None:
    parser = argparse.ArgumentParser(prog="codec.py")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    asked = parser.parse_args()
    meant, labels = answers()
    rows = [["as it was meant", "", "0.00", f"{perplexity(meant, labels):.0f}"]]
    rows += [travelled(meant, labels, codec, k) for codec, k in CODECS]
    text = table_of([f"{PROBES} distributions over {meant.shape[1]:,} words", "bytes", "nats", "perplexity"], rows)
    sys.stdout.write(f"{text}\n")
    if asked.write:
        publish("table: codec", "python examples/keyboard/codec.py --write", text, HERE / "README.md")


def answers() -> tuple[F32, I64]:
    """Return what the factory's model says of some places [n, words], and the words that came next."""
    bundle = load_bundle(HERE / "artifacts" / "words-s")
    task = bundle.manifest.task
    samples = read_samples(HERE / "made" / "unseen.npz", task)
    assert samples.labels is not None
    rows = np.random.default_rng(0).permutation(len(samples))[:PROBES]
    features = bundle.open("onnxruntime").features(preprocessed(samples.values[rows], task))
    return soften(bundle.open_tail("onnxruntime").logits(features), 1.0), samples.labels[rows]


def travelled(meant: F32, labels: I64, codec: Codec, k: int) -> list[str]:
    codes = quantise(SoftLabels(meant, 1.0), codec, k)
    arrived = codes.probabilities()
    nats = float((meant * (np.log(meant) - np.log(np.maximum(arrived, np.finfo(np.float32).tiny)))).sum(axis=1).mean())
    name = f"{codec.value}, k = {k}" if k else codec.value
    return [name, f"{len(encode_body(codes)):,}", f"{nats:.2f}", f"{perplexity(arrived, labels):.0f}"]


def perplexity(probabilities: F32, labels: I64) -> float:
    likelihoods = np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(np.float32).tiny)
    return float(np.exp(-np.log(likelihoods).mean()))


if __name__ == "__main__":
    main()
