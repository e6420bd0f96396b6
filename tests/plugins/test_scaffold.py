"""`fitspike plugins new`: what it writes installs with pip, is found by the real loader, passes its own tests, and fits recordings."""

import json
import keyword
import os
import subprocess
import sys

import numpy as np
import pytest

from fitspike.cli.main import run
from fitspike.datasets.loading import load
from fitspike.plugin.kinds import KINDS
from fitspike.plugin.registry import get_registry, reset_registry
from fitspike.recording.recording import Recording

OPTIONS = [kind.option for kind in KINDS.values()]
QUIET = ["--progress", "off", "--threads", "1", "--no-report", "--set", "score.n_bootstrap=20", "--set", "score.co_smoothing_bins=0"]
STEPS = ["--set", "stop.max_steps=4", "--set", "stop.log_every=1", "--set", "simulation.max_seconds=1"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the folder of a new plugin of each kind and the folder into which pip installed all of them."""
    folder, site = tmp_path_factory.mktemp("new"), tmp_path_factory.mktemp("site")
    for option in OPTIONS:
        assert run(["plugins", "new", f"new-{option}", "--kind", option, "--out", str(folder / option)]) == 0
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, *(str(folder / option) for option in OPTIONS)], check=True, capture_output=True, timeout=300)
    return folder, site


@pytest.fixture
def loaded(installed, monkeypatch):
    """Let this process see the installed plugins."""
    monkeypatch.syspath_prepend(str(installed[1]))
    reset_registry()
    yield get_registry()
    reset_registry()
    for name in [name for name in sys.modules if name.startswith("fitspike_new_")]:
        del sys.modules[name]


def generated_tests(folder, site):
    """Run the tests of generated plugins in one process; return exit status and output."""
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "error"]
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, folder)], capture_output=True, text=True, env=environment, timeout=300, cwd=site, check=False
    )
    return done.returncode, done.stdout


def test_generated_tests_of_every_kind_pass(installed):
    folder, site = installed
    status, output = generated_tests([folder / option for option in OPTIONS], site)
    assert (status, f"{len(OPTIONS)} passed" in output) == (0, True), output


def test_a_generated_test_fails_when_its_plugin_is_broken(installed, tmp_path):
    source = (installed[1] / "fitspike_new_statistic.py").read_text(encoding="utf-8")
    assert "chunk.mask.to(spikes.device)" in source
    broken = source.replace("chunk.mask.to(spikes.device)", "torch.ones_like(chunk.mask)")
    (tmp_path / "fitspike_new_statistic.py").write_text(broken, encoding="utf-8")
    status, output = generated_tests([installed[0] / "statistic"], tmp_path)
    assert status == 1 and "masked bins" in output


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.option)
def test_the_loader_finds_what_pip_installed(loaded, kind):
    name = f"new-{kind.option}"
    record = {record.name: record for record in loaded.records()}[name]
    assert (record.status, record.distribution, record.version) == ("loaded", f"fitspike-{name}", "0.1.0")
    assert record.hooks == (kind.hook,)
    assert loaded.entry(kind.table, name).qualified_name == f"{name}:{name}"
    assert loaded.create(kind.table, name).name == name


def test_new_parts_fit_a_file_of_the_new_reader(loaded, tmp_path, capsys):
    """A neuron model, two losses, an update transform and a reader of strangers, and no line of the core changed."""
    draw = np.random.default_rng(3)
    spikes = sorted((time, neuron) for neuron in range(3) for time in draw.uniform(0, 20, 200))
    path = tmp_path / "session.new-reader"
    path.write_text("".join(f"{time:.6f} {neuron}\n" for time, neuron in spikes), encoding="utf-8")
    parts = ["--neuron", "new-neuron-model", "--loss", "nll=1,new-loss=0.1", "--transform", "new-update-transform"]
    out = tmp_path / "run"
    assert run(["fit", str(path), *parts, "--dt-ms", "10", *QUIET, *STEPS, "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    neuron = found["model"]["settings"]["neuron"]
    assert (neuron["qualified_name"], neuron["version"]) == ("new-neuron-model:new-neuron-model", "0.1.0")
    with np.load(out / "params.npz") as params:
        assert params["tau_m_ms"].shape == (3,) and not np.array_equal(params["threshold_mv"], np.full(3, -50.0))
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all({"nll", "new-loss"} <= set(row) for row in rows if row["stage"] == "fit")
    used = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    assert "fitspike-new-neuron-model" in json.dumps(used)


def test_new_model_learns_by_the_new_rule(loaded, tmp_path, capsys):
    counts = (np.random.default_rng(4).random((4, 400, 2)) < [0.1, 0.3]).astype(int)
    path = Recording.from_counts(counts, dt_ms=10.0).save(tmp_path / "counts.fitspike")
    out = tmp_path / "run"
    options = ["--model", "new-model", "--rule", "new-learning-rule", *QUIET, *STEPS, "--out", str(out), "--json"]
    assert run(["fit", str(path), *options]) == 0
    assert json.loads(capsys.readouterr().out)["n_neurons"] == 2
    with np.load(out / "params.npz") as params:
        assert set(params) == {"bias", "weight"} and (params["weight"] != 0).all()


def test_the_new_rule_goes_on_from_chunk_to_chunk_of_a_network(loaded, tmp_path, capsys):
    """Trials of four chunks: a network's state hangs on parameters that the rule has moved since."""
    counts = (np.random.default_rng(5).random((1, 400, 2)) < [0.1, 0.3]).astype(int)
    path = Recording.from_counts(counts, dt_ms=10.0).save(tmp_path / "counts.fitspike")
    options = ["--model", "spiking-network", "--rule", "new-learning-rule", "--set", "batch.n_bins=100", "--set", "split=none"]
    assert run(["fit", str(path), *options, *QUIET, *STEPS, "--out", str(tmp_path / "run"), "--json"]) == 0, capsys.readouterr().err


def test_new_dataset_is_made_from_the_command_line(loaded, tmp_path, capsys):
    assert run(["datasets", "make", "new-dataset", "--out", str(tmp_path / "made.fitspike"), "--json"]) == 0
    assert load(json.loads(capsys.readouterr().out)["path"]).n_neurons == 5


def test_files_of_a_new_plugin(tmp_path, capsys):
    assert run(["plugins", "new", "my-loss", "--kind", "loss", "--out", str(tmp_path / "p"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert sorted(printed["files"]) == ["README.md", "fitspike_my_loss.py", "pyproject.toml", "tests/test_conformance.py"]
    assert sorted(str(path.relative_to(tmp_path / "p")) for path in (tmp_path / "p").rglob("*") if path.is_file()) == sorted(
        printed["files"]
    )


def test_the_default_folder_is_named_after_the_distribution(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["plugins", "new", "my-loss", "--kind", "loss"]) == 0
    assert (tmp_path / "fitspike-my-loss" / "fitspike_my_loss.py").is_file()


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ["none", "citation", "recording"])
def test_a_name_that_python_or_the_example_uses_still_gives_a_working_module(tmp_path, option, name):
    assert run(["plugins", "new", name, "--kind", option, "--out", str(tmp_path / "p")]) == 0
    namespace = {"__name__": "fitspike_generated"}
    sys.modules["fitspike_generated"] = type(sys)("fitspike_generated")  # dataclasses look their module up
    try:
        exec((tmp_path / "p" / f"fitspike_{name}.py").read_text(encoding="utf-8"), namespace)
    finally:
        del sys.modules["fitspike_generated"]
    made = []
    namespace[next(key for key in namespace if key.startswith("fitspike_register_"))](made.append)
    assert made[0].name == name and not keyword.iskeyword(made[0].__name__)


@pytest.mark.parametrize("name", ["My-Neuron", "my_neuron", "my neuron", "2nd", "a/b", "..", "", "a--b", "-a"])
def test_a_bad_name_is_refused(tmp_path, capsys, name):
    assert run(["plugins", "new", "--kind", "loss", "--out", str(tmp_path / "p"), "--", name]) == 1
    assert f"{name!r} is no name for a plugin. Use small letters" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("name", "kind", "why"),
    [
        ("lif", "neuron-model", "there is a neuron model 'lif'"),
        ("fitspike", "loss", "a plugin has it"),
        ("datasets", "loss", "a plugin has it"),
    ],
)
def test_a_name_in_use_is_refused(tmp_path, capsys, name, kind, why):
    assert run(["plugins", "new", name, "--kind", kind, "--out", str(tmp_path / "p")]) == 1
    assert f"the name {name!r} is in use: {why}" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("precious", encoding="utf-8")
    for target, why in ((tmp_path, "exists and is not empty"), (tmp_path / "mine.py", "exists and is no folder")):
        assert run(["plugins", "new", "my-loss", "--kind", "loss", "--out", str(target)]) == 1
        assert f"{target} {why}. Choose another place with --out." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]
    assert (tmp_path / "mine.py").read_text(encoding="utf-8") == "precious"


def test_an_unknown_kind_is_a_usage_error_with_a_suggestion(tmp_path, capsys):
    assert run(["plugins", "new", "x", "--kind", "neuron-modle", "--out", str(tmp_path / "p")]) == 2
    error = capsys.readouterr().err
    assert "no kind 'neuron-modle'; did you mean 'neuron-model'? Kinds: neuron-model, model, " in error
