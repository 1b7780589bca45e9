"""`model-export`: the ML engineer's program. `model-export --help` lists what it does."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import FeatureSpec, Task
from fd_protocol.public_set import PUBLIC_SET_NAME
from fd_runtime.artifacts import Bundle, PublicSet, load_bundle, load_public_set
from fd_runtime.command_line import Parser, run_program
from fd_runtime.config import load_toml
from fd_runtime.files import write_atomically
from fd_runtime.packages import pack, unpack
from fd_runtime.pages import print_sections, write_page
from fd_runtime.releases import release
from model_export.cookbook import Cookbook, bake, plans, sensitivities
from model_export.families import describe
from model_export.op_table import markdown
from model_export.probes_check import check_probes
from model_export.proving import prove_anywhere
from model_export.samples import read_samples
from model_export.trust_commands import add_trust_commands
from model_export.verification.report import page_of
from model_export.verification.verify import verify

_MOST_SHOWN = 20
"""Of a list; JSON has all of it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    logging.basicConfig(format="%(name)s: %(message)s")  # warnings, on stderr
    return run_program(_parser(), argv)


def _parser() -> Parser:
    parser = Parser(prog="model-export", description="Make bundles and public sets, and check them.")
    commands = parser.add_subparsers(
        required=True,
        metavar="build|plan|sensitivity|verify|inspect|pack|unpack|release|publish|trust|probes|families|ops",
    )

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    build = command("build", _build, "make every bundle and the public set of a TOML file")
    _add_recipe(build)
    build.add_argument("--out", type=Path, required=True, help="folder to write into")
    _add_recipe(command("plan", _plan, "say what would train, and what that would cost on each device; write nothing"))

    _add_recipe(command("sensitivity", _sensitivity, "say how much each layer loses by int8, the worst first"))

    check = command("verify", _verify, "check digests, golden vectors, parity of all variants, gradients")
    check.add_argument("folder", type=Path)
    check.add_argument("--data", type=Path, help="samples to compare the variants on, labelled if accuracy is wanted")
    check.add_argument("--label", default="y", help="column of the labels (y)")
    check.add_argument("--html", type=Path, help="also write a page, with the error of each layer")
    show = command("inspect", _inspect, "say what a bundle or a public set is")
    show.add_argument("folder", type=Path)
    for printed in (build, check, show):
        printed.add_argument("--json", action="store_true", help="print JSON")

    packing = command("pack", _pack, "write a bundle or a public set as one file")
    packing.add_argument("folder", type=Path)
    packing.add_argument("--parent", type=Path, help="bundle that devices have: write a delta, without its files")
    packing.add_argument("--out", type=Path, required=True)
    unpacking = command("unpack", _unpack, "write what is in such a file into a folder, every digest checked")
    unpacking.add_argument("package", type=Path)
    unpacking.add_argument("--parent", type=Path, help="bundle that a delta builds on")
    unpacking.add_argument("--out", type=Path, required=True)

    releasing = command("release", _release, "write the next release of a bundle: the same graphs, other parameters")
    releasing.add_argument("parent", type=Path)
    releasing.add_argument("--theta", type=Path, required=True, help="the parameters, little-endian float32")
    releasing.add_argument("--version", required=True)
    text = "devices go on with what they have learnt; only those that have not begin with these parameters"
    releasing.add_argument("--keeps-tail", action="store_true", help=text)
    releasing.add_argument("--out", type=Path, required=True)

    add_trust_commands(commands)

    checking = command("probes", _check_probes, "say whether a public set lies where private data lies")
    checking.add_argument("action", choices=["check"])
    checking.add_argument("public_set", type=Path)
    checking.add_argument("samples", type=Path, nargs="+", help="private-like samples, one file or folder a device")
    checking.add_argument("--bundle", type=Path, required=True, help="any bundle of the task")
    checking.add_argument("--label", default="y", help="column of the labels (y)")

    command("families", _families, "list the reference model families")
    command("ops", _ops, "list the ONNX ops, their gradients and their TFLite forms")
    return parser


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="TOML; its keys are described in docs/export.md")


def _build(arguments: argparse.Namespace) -> int:
    baked = bake(load_toml(arguments.recipe, Cookbook), arguments.out)
    _print(_public_set(baked.public_set), as_json=arguments.json)
    for bundle in baked.bundles:
        if not arguments.json:
            print()
        _print(_bundle(bundle), as_json=arguments.json)
    if baked.canaries and not arguments.json:
        print(f"\nfor the server alone: {baked.canaries}")
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    for recipe, plan in plans(load_toml(arguments.recipe, Cookbook)):
        print(f"bundle {recipe.name}\n\n{plan.table()}\n")
    return 0


def _sensitivity(arguments: argparse.Namespace) -> int:
    for recipe, report in sensitivities(load_toml(arguments.recipe, Cookbook)):
        print(f"bundle {recipe.name}\n\n{report.table()}\n")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    if _is_public_set(arguments.folder):
        _print({"verified": True, **_public_set(_verified_public_set(arguments.folder))}, as_json=arguments.json)
        return 0
    task = load_bundle(arguments.folder).manifest.task
    samples = None if arguments.data is None else read_samples(arguments.data, task, label=arguments.label)
    found = verify(arguments.folder, samples)
    page = page_of(found, f"model-export verify {arguments.folder}")
    if arguments.json:
        print(json.dumps({"verified": True, **found.to_plain()}))
    else:
        print_sections(page.title, page.summary, page.sections, Console())
    if arguments.html:
        write_page(page, arguments.html)
    return 0


def _verified_public_set(folder: Path) -> PublicSet:
    public = load_public_set(folder)
    public.probes()
    public.space()
    return public


def _inspect(arguments: argparse.Namespace) -> int:
    artifact = _load(arguments.folder)
    described = _bundle(artifact) if isinstance(artifact, Bundle) else _public_set(artifact)
    _print(described, as_json=arguments.json)
    return 0


def _pack(arguments: argparse.Namespace) -> int:
    parent = None if arguments.parent is None else load_bundle(arguments.parent)
    package = pack(_load(arguments.folder), parent=parent)
    write_atomically(arguments.out, package)
    print(f"{arguments.out}  {len(package):,} bytes")
    return 0


def _unpack(arguments: argparse.Namespace) -> int:
    artifact = unpack(arguments.package.read_bytes(), arguments.out, parent=arguments.parent)
    print(f"{arguments.out}  {artifact.digest.hex()}")
    return 0


def _release(arguments: argparse.Namespace) -> int:
    data = arguments.theta.read_bytes()
    if len(data) % 4:
        raise InvalidValueError(f"{arguments.theta} holds no float32 numbers: {len(data)} bytes")
    theta = np.frombuffer(data, "<f4").astype(np.float32)
    parent = load_bundle(arguments.parent)
    made = release(
        parent,
        theta,
        arguments.out,
        version=arguments.version,
        keeps_tail=arguments.keeps_tail,
        prove=prove_anywhere,
    )
    _print(_bundle(made), as_json=False)
    return 0


def _check_probes(arguments: argparse.Namespace) -> int:
    task = load_bundle(arguments.bundle).manifest.task
    parts = [read_samples(path, task, label=arguments.label) for path in arguments.samples]
    print("\n".join(check_probes(load_public_set(arguments.public_set), task, parts).lines()))
    return 0


def _families(_arguments: argparse.Namespace) -> int:
    _print(dict(describe()), as_json=False)
    return 0


def _ops(_arguments: argparse.Namespace) -> int:
    print(markdown())
    return 0


def _load(folder: Path) -> Bundle | PublicSet:
    return load_public_set(folder) if _is_public_set(folder) else load_bundle(folder)


def _is_public_set(folder: Path) -> bool:
    return (folder / PUBLIC_SET_NAME).exists()


def _bundle(bundle: Bundle) -> dict[str, Any]:
    manifest, features, costs = bundle.manifest, bundle.manifest.features, bundle.manifest.costs
    return {
        "bundle": manifest.name,
        "folder": str(bundle.folder),
        "digest": bundle.digest.hex(),
        "family": manifest.family,
        "version": manifest.version,
        "parent": manifest.parent or "none",
        "keeps_tail": bool(manifest.keeps_tail),
        "licence": manifest.licence or "not stated",
        "task": manifest.task.digest.hex(),
        "classes": list(manifest.task.classes),
        "input": _input(manifest.task),
        "features": _features(features) if features else "none: every layer trains",
        "output": f"float32 [N, {len(manifest.task.classes)}] logits",
        "trainable": manifest.layout.size,
        "parameters": {slot.name: slot.size for slot in manifest.layout.slots},
        "optimizer": manifest.training.optimizer,
        "optimizer_slots": list(manifest.training.slots),
        "batch": manifest.training.batch,
        "inference_flops": costs.inference_flops if costs else "not counted",
        "train_flops": costs.train_flops if costs else "not counted",
        "train_peak_bytes": costs.train_peak_bytes if costs else "not counted",
        "verified_on": list(manifest.verified_on),
        "provenance": dict(manifest.provenance),
        "bytes": {entry.path: entry.size_bytes for entry in manifest.files.values()},
    }


def _input(task: Task) -> str:
    shape = ", ".join(map(str, task.sample_shape))
    if task.vocabulary is not None:
        return f"{task.sample_dtype} [N, {shape}], tokens 0 to {task.vocabulary - 1}"
    terms = task.preprocessing
    return f"{task.sample_dtype} [N, {shape}], read as x * {terms.scale:.9g} + {terms.offset:.9g}"


def _features(features: FeatureSpec) -> str:
    shape = f"{features.dtype} [N, {', '.join(map(str, features.shape))}]"
    return f"{shape}, (code - {features.zero_point}) * {features.scale:.9g}" if features.dtype == "uint8" else shape


def _public_set(public: PublicSet) -> dict[str, Any]:
    spec = public.spec
    return {
        "public_set": public.folder.name,
        "folder": str(public.folder),
        "digest": public.digest.hex(),
        "task": spec.task_sha256,
        "probes": spec.count,
        "slices": "any run of probes is a random draw: they were shuffled once",
        "sample": f"{spec.sample_dtype} {list(spec.sample_shape)}",
        "space": f"{spec.space.kind.value} of {spec.space.dimensions}, unit {spec.space.unit:.3g}",
        "provenance": dict(spec.provenance),
        "bytes": {entry.path: entry.size_bytes for entry in spec.files.values()},
    }


def _print(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts))
        return
    width = max(map(len, facts))
    for name, fact in facts.items():
        if fact != {}:
            print(f"{name:>{width}}  {_text(fact)}")


def _text(fact: Any) -> str:
    if isinstance(fact, dict):
        return ", ".join(
            f"{name} ({value:,})" if isinstance(value, int) else f"{name} {value}" for name, value in fact.items()
        )
    if isinstance(fact, list):
        more = f" and {len(fact) - _MOST_SHOWN:,} more" if len(fact) > _MOST_SHOWN else ""
        return f"{', '.join(fact[:_MOST_SHOWN])}{more}" or "none"
    return f"{fact:,}" if isinstance(fact, int) else str(fact)
