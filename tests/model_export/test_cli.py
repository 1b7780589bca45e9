"""`model-export` says what it made, and what is wrong in one line with an exit code of sysexits.h."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

from fd_protocol.manifest import MANIFEST_NAME, FileEntry
from fd_runtime.artifacts import load_bundle, load_public_set
from fd_runtime.fitting import TrainingDivergedError
from model_export.cli import _text, main
from model_export.cookbook import RecipeError
from model_export.families import build_family
from model_export.graph import GraphBuilder, tensor

TASK = """
[task]
classes = ["a", "b", "c"]
sample_shape = [6]
sample_dtype = "uint8"
preprocessing = { scale = 0.01 }

[data]
probes = "probes.npy"
factory = "factory.npz"
"""
BUNDLES = """
[[bundles]]
name = "small"
family = "mlp-s"
pretraining = { epochs = 2 }

[[bundles]]
name = "large"
family = "mlp-l"
tflite = "none"
"""


def write_recipe(folder):
    rng = np.random.default_rng(0)
    np.save(folder / "probes.npy", rng.integers(0, 256, (30, 6), dtype=np.uint8))
    np.savez(folder / "factory.npz", x=rng.integers(0, 256, (20, 6), dtype=np.uint8), y=rng.integers(0, 3, 20))
    path = folder / "recipe.toml"
    path.write_text(TASK + BUNDLES)
    return path


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path)


def test_build_writes_every_bundle_and_the_public_set(recipe, tmp_path, capsys):
    assert main(["build", str(recipe), "--out", str(tmp_path / "out"), "--json"]) == 0
    public, small, large = map(json.loads, capsys.readouterr().out.splitlines())
    assert public["digest"] == load_public_set(tmp_path / "out" / "public-set").digest.hex()
    for said, name in ((small, "small"), (large, "large")):
        assert said["digest"] == load_bundle(tmp_path / "out" / name).digest.hex()
    assert {"onnxruntime", "litert", "numpy"} <= set(small["verified_on"])
    assert large["verified_on"] == ["onnxruntime", "numpy"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    assert main(["build", str(write_recipe(folder)), "--out", str(folder / "out")]) == 0
    return folder


@pytest.fixture
def built(made, tmp_path):
    """What is built, and its recipe, for each test to spoil."""
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True) / "out"


@pytest.mark.parametrize("name", ["small", "public-set"])
@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_whole_folder_verifies_and_can_be_inspected(built, command, name, capsys):
    assert main([command, str(built / name)]) == 0
    assert "digest" in capsys.readouterr().out


def test_an_inspection_says_what_goes_in_and_what_comes_out(built, capsys):
    assert main(["inspect", str(built / "small")]) == 0
    said = capsys.readouterr().out
    for fact in ("a, b, c", "uint8 [N, 6], read as x * 0.01 + 0", "float32 [N, 3] logits", "moment1, moment2"):
        assert fact in said


def test_a_public_set_says_where_its_probes_come_from_and_not_where_its_canaries_are(built, capsys):
    assert main(["inspect", str(built / "public-set"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["provenance"].keys() == {"probes", "fedistill", "numpy"}


@pytest.mark.parametrize("name", ["small", "public-set"])
def test_a_changed_file_is_a_data_error(built, name, capsys):
    victim = max((built / name).glob("*.*"), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    assert main(["verify", str(built / name)]) == 65
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert victim.name in said


@pytest.mark.parametrize("role", ["tail", "train_step", "tail_tflite", "train_step_tflite", "golden"])
@pytest.mark.parametrize("content", [b"junk", b"x"])
def test_a_promised_file_that_is_no_graph_is_a_data_error(built, role, content, capsys):
    folder = built / "small"
    manifest = load_bundle(folder).manifest
    entry = manifest.files[role]
    (folder / entry.path).write_bytes(content)
    files = {**manifest.files, role: FileEntry.of(entry.path, content)}
    (folder / MANIFEST_NAME).write_bytes(replace(manifest, files=files).to_json())
    assert main(["verify", str(folder)]) == 65
    said = capsys.readouterr().err
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("mlp-s", "mlp-x", 78, ["mlp-x", "mlp-s"]),
        ("[task]", "[tusk]", 78, ["tusk", "task"]),
        ("probes.npy", "nowhere.npy", 65, ["nowhere.npy"]),
        ("[6]", "[7]", 65, ["probes.npy", "7"]),
        ('name = "large"', 'name = "small"', 78, ["one name each"]),
        ('"c"]', '"c", "c"]', 78, ["class"]),
        ('"small"', '"../small"', 78, ["recipe.toml", "bundles.0", "../small"]),
        ("[data]", "[public_set]\nseed = -1\n[data]", 78, ["public_set", "seed"]),
        ("[data]", "[public_set]\ndimensions = 0\n[data]", 78, ["public_set", "dimensions"]),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said_in_one_line(recipe, tmp_path, capsys, old, new, code, words):
    recipe.write_text(recipe.read_text().replace(old, new))
    assert main(["build", str(recipe), "--out", str(tmp_path / "out")]) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for word in words:
        assert word in said


def test_building_twice_into_one_folder_is_refused(built, recipe, capsys):
    recipe.write_text(recipe.read_text() + "[public_set]\nseed = 5\n")
    before = load_public_set(built / "public-set").digest
    assert main(["build", str(recipe), "--out", str(built)]) == 73
    assert str(built / "public-set") in capsys.readouterr().err
    assert load_public_set(built / "public-set").digest == before


def test_a_missing_bundle_is_named(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "nothing")]) == 66
    assert "nothing" in capsys.readouterr().err


def test_a_wrong_call_is_a_usage_error():
    with pytest.raises(SystemExit) as ended:
        main(["bake"])
    assert ended.value.code == 64


def test_plan_says_what_would_train_and_writes_nothing(recipe, tmp_path, capsys):
    before = sorted(tmp_path.iterdir())
    assert main(["plan", str(recipe)]) == 0
    said = capsys.readouterr().out
    assert "what trains: tail" in said
    assert "pi-5" in said
    assert sorted(tmp_path.iterdir()) == before


def test_a_family_without_data_to_learn_from_is_told_of_on_stderr(recipe, tmp_path):
    recipe.write_text(TASK.replace('factory = "factory.npz"', "") + BUNDLES)
    program = "import sys; from model_export.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "build", str(recipe), "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    warned = [line for line in done.stderr.splitlines() if "untrained weights" in line]
    assert [line.split(" has")[0] for line in warned] == ["model-export: bundle small", "model-export: bundle large"]
    assert json.loads(done.stdout.splitlines()[1])["provenance"]["weights"] == "fresh"


def test_verify_compares_variants_on_data_and_writes_a_page(built, tmp_path, capsys):
    page = tmp_path / "page.html"
    data = str(tmp_path / "factory.npz")
    assert main(["verify", str(built / "small"), "--data", data, "--html", str(page), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["rows"] == 20
    assert said["parity"][0]["accuracy"] is not None
    assert "<h1>small 1</h1>" in page.read_text()


def test_canaries_go_to_a_file_that_only_its_owner_reads(recipe, tmp_path, capsys):
    recipe.write_text(recipe.read_text().replace("[data]", '[data]\ncanaries = "factory.npz"'))
    assert main(["build", str(recipe), "--out", str(tmp_path / "out")]) == 0
    secret = tmp_path / "out" / "canaries.json"
    assert "for the server alone" in capsys.readouterr().out
    assert secret.stat().st_mode & 0o777 == 0o600
    assert (
        json.loads(secret.read_text())["public_set_sha256"]
        == load_public_set(tmp_path / "out" / "public-set").digest.hex()
    )
    assert load_public_set(tmp_path / "out" / "public-set").spec.count == 50


def test_nobody_finds_the_canaries_by_a_seed_that_everyone_knows(recipe, tmp_path):
    recipe.write_text(recipe.read_text().split("[[bundles]]")[0].replace("[data]", '[data]\ncanaries = "factory.npz"'))
    recipe.write_text(recipe.read_text() + '[[bundles]]\nname = "small"\nfamily = "mlp-s"\ntflite = "none"\n')
    for name in ("one", "two"):
        assert main(["build", str(recipe), "--out", str(tmp_path / name)]) == 0
    one, two = (np.load(tmp_path / name / "public-set" / "probes.npy") for name in ("one", "two"))
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(np.sort(one, axis=0), np.sort(two, axis=0))


def test_a_package_comes_back_and_a_delta_is_smaller(built, tmp_path, capsys):
    package, delta = tmp_path / "small.tar", tmp_path / "delta.tar"
    assert main(["pack", str(built / "small"), "--out", str(package)]) == 0
    assert main(["unpack", str(package), "--out", str(tmp_path / "again")]) == 0
    assert load_bundle(built / "small").digest.hex() in capsys.readouterr().out
    assert main(["pack", str(built / "small"), "--parent", str(built / "small"), "--out", str(delta)]) == 0
    assert delta.stat().st_size < package.stat().st_size
    assert main(["unpack", str(delta), "--out", str(tmp_path / "no")]) == 66
    assert main(["unpack", str(delta), "--parent", str(tmp_path / "again"), "--out", str(tmp_path / "yes")]) == 0


def test_families_and_ops_are_listed(capsys):
    assert main(["families"]) == 0
    assert main(["ops"]) == 0
    said = capsys.readouterr().out
    assert "cnn-m" in said
    assert "| Conv | dx = " in said


def test_an_onnx_file_becomes_a_bundle_through_the_cookbook(recipe, tmp_path, capsys):
    onnx.save(build_family("mlp-s", (6,), 3, seed=0).model, tmp_path / "own.onnx")
    recipe.write_text(TASK + '[[bundles]]\nname = "own"\nmodel = "own.onnx"\ntrains = "head"\nlicence = "MIT"\n')
    assert main(["build", str(recipe), "--out", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["licence"] == "MIT"
    assert list(said["parameters"]) == ["output.weight", "output.bias"]


def test_sensitivity_lists_the_layers_of_int8_backbones(tmp_path, capsys):
    np.save(tmp_path / "probes.npy", np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8), dtype=np.uint8))
    path = tmp_path / "recipe.toml"
    task = TASK.replace("[6]", "[1, 8, 8]").replace('factory = "factory.npz"', "")
    path.write_text(task + '[[bundles]]\nname = "camera"\nfamily = "cnn-s"\n')
    assert main(["sensitivity", str(path)]) == 0
    said = capsys.readouterr().out
    assert "bundle camera" in said
    assert "conv2" in said


def test_a_recipe_says_which_output_of_a_file_holds_the_scores(recipe, tmp_path, capsys):
    own = build_family("mlp-s", (6,), 3, seed=0).model
    hidden = next(node.output[0] for node in own.graph.node if node.op_type == "Relu")
    own.graph.output.append(onnx.helper.make_tensor_value_info(hidden, onnx.TensorProto.FLOAT, ["N", None]))
    onnx.save(own, tmp_path / "own.onnx")
    bundle = '[[bundles]]\nname = "own"\nmodel = "own.onnx"\n'
    recipe.write_text(TASK + bundle)
    assert main(["plan", str(recipe)]) != 0
    assert "say `logits`, one of" in capsys.readouterr().err
    recipe.write_text(TASK + bundle + f'logits = "{own.graph.output[0].name}"\n')
    assert main(["plan", str(recipe)]) == 0


def own_model(folder, name="own.onnx"):
    onnx.save(build_family("mlp-s", (6,), 3, seed=0).model, folder / name)


@pytest.mark.parametrize(
    ("bundle", "code", "words"),
    [
        ('model = "absent.onnx"', 66, ["absent.onnx"]),
        ('model = "garbage.onnx"', 65, ["model: ", "garbage.onnx", "not a readable ONNX file"]),
        ('model = "empty.onnx"', 65, ["model: ", "empty.onnx"]),
        ('family = "cnn-s"', 78, ["cnn-s"]),
        ('trains = "head"', 78, ["`family`", "`model`"]),
        ('family = "mlp-s"\nbudget = { memory_bytes = 9, milliseconds = 1, profile = "pi-4" }', 78, ["budget: "]),
        ('family = "mlp-s"\nparent = "absent"', 66, ["absent"]),
        ('family = "mlp-s"\nint8_tail = true', 78, ["int8_tail: "]),
    ],
)
def test_a_bundle_that_cannot_be_made_is_named_with_the_key_and_nothing_is_left(
    recipe, tmp_path, capsys, bundle, code, words
):
    (tmp_path / "garbage.onnx").write_bytes(b"garbage")
    (tmp_path / "empty.onnx").write_bytes(b"")
    recipe.write_text(f'{TASK}{BUNDLES}\n[[bundles]]\nname = "third"\ntflite = "none"\n{bundle}\n')
    recipe.write_text(recipe.read_text().replace("epochs = 2", "epochs = 1"))
    assert main(["build", str(recipe), "--out", str(tmp_path / "out")]) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for word in ("bundle 'third'", *words):
        assert word in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("probes", "words"), [(np.zeros((30, 6)), "too much alike"), (np.eye(6)[:5], "5 calibration")])
def test_probes_that_will_not_do_are_named(recipe, tmp_path, capsys, probes, words):
    np.save(tmp_path / "probes.npy", probes.astype(np.uint8))
    assert main(["build", str(recipe), "--out", str(tmp_path / "out")]) == 65
    said = capsys.readouterr().err
    assert "probes.npy: " in said
    assert words in said
    assert not (tmp_path / "out").exists()


def test_a_model_without_tflite_form_is_refused_where_twins_are_required(recipe, tmp_path, capsys):
    builder = GraphBuilder()
    weight = builder.parameter("weight", np.eye(6, 3, dtype=np.float32))
    logits = builder.op("MatMul", builder.op("CumSum", "input", builder.constant(1, np.int64)), weight, output="logits")
    onnx.save(builder.model("own", [tensor("input", ("N", 6))], [tensor(logits, ("N", 3))]), tmp_path / "own.onnx")
    own = '[[bundles]]\nname = "own"\nmodel = "own.onnx"\ntflite = "required"\n'
    recipe.write_text(TASK + own)
    assert main(["build", str(recipe), "--out", str(tmp_path / "out")]) == 78
    assert "bundle 'own': tflite: CumSum" in capsys.readouterr().err


def test_a_training_that_diverged_is_about_the_learning_rate():
    error = RecipeError("small", TrainingDivergedError(3, 1e9))
    assert str(error).startswith("bundle 'small': pretraining.learning_rate: ")
    assert error.exit_code == 78


def test_a_release_is_made_from_new_parameters(built, tmp_path, capsys):
    parent = load_bundle(built / "small")
    theta = np.random.default_rng(0).normal(0, 0.1, parent.manifest.layout.size).astype("<f4")
    (tmp_path / "theta.bin").write_bytes(theta.tobytes())
    made = ["release", str(built / "small"), "--theta", str(tmp_path / "theta.bin"), "--version", "2"]
    assert main([*made, "--out", str(tmp_path / "next")]) == 0
    child = load_bundle(tmp_path / "next").manifest
    assert (child.version, child.parent) == ("2", parent.digest.hex())
    assert child.verified_on == parent.manifest.verified_on
    (tmp_path / "theta.bin").write_bytes(theta[:-1].tobytes())
    assert main([*made, "--out", str(tmp_path / "never")]) != 0
    assert not (tmp_path / "never").exists()


def test_probes_are_checked_against_private_samples(built, tmp_path, capsys):
    public, bundle = str(built / "public-set"), ["--bundle", str(built / "small")]
    assert main(["probes", "check", public, str(tmp_path / "factory.npz"), *bundle]) == 0
    assert "units" in capsys.readouterr().out


def test_of_a_long_list_the_first_are_shown_to_people():
    words = [f"w{number}" for number in range(2000)]
    assert _text(words).startswith("w0, w1, ")
    assert _text(words).endswith("w19 and 1,980 more")
    assert _text(words[:3]) == "w0, w1, w2"
    assert _text([]) == "none"
