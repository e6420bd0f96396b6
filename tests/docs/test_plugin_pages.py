"""The pages on plugins say what the code does: hooks, public names, kinds, checks, switches, and the example as a stranger would use it."""

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fitspike.plugin
from fitspike.cli.main import run
from fitspike.plugin import hookspecs
from fitspike.plugin.kinds import KINDS
from fitspike.plugin.manager import HOOK_NAMES
from fitspike.plugin.registry import reset_registry
from fitspike.recording.recording import Recording

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCES = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "fitspike").rglob("*.py"))]


def page(name):
    return (DOCS / "plugins" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("hook", HOOK_NAMES)
def test_every_hook_is_documented_with_its_arguments(hook):
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"| `{hook}({arguments})` |" in page("hooks")


def test_no_hook_is_documented_that_does_not_exist():
    assert set(re.findall(r"`(fitspike_\w+)\(", page("hooks"))) == set(HOOK_NAMES)


@pytest.fixture(scope="module")
def interface():
    spec = importlib.util.spec_from_file_location("interface_pages", DOCS / "_tools" / "interface_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.page()


@pytest.mark.parametrize("name", fitspike.plugin.__all__)
def test_every_public_name_is_documented(interface, name):
    text = interface.partition(f"\n### {name}\n\n```text\n")[2].partition("\n```\n")[0]
    call, _, meaning = text.partition("\n\n")
    assert call.startswith(name) and len(meaning.strip()) > 5, text


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.option)
def test_every_kind_and_its_check_are_documented(interface, kind):
    assert f"`{kind.option}`" in page("write-one")
    check = f"check_{kind.option.replace('-', '_')}"
    assert check in fitspike.plugin.__all__ and f"| `{check}` |" in page("testing")


def test_every_check_of_the_suite_is_named():
    named = {name for text in SOURCES for name in re.findall(r'report\.check\(\s*"([^"]+)"', text)}
    assert len(named) > 40
    assert not [name for name in sorted(named) if name not in page("testing")]


def test_every_environment_variable_is_documented():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md"))
    read = {name for text in SOURCES for name in re.findall(r'environ(?:\.get\(|\[)"(FITSPIKE_\w+)"', text)}
    assert "FITSPIKE_PLUGINS" in read
    assert not [name for name in sorted(read) if name not in pages]


def test_the_printed_plugin_fits_a_recording_once_installed(tmp_path, monkeypatch, capsys):
    """The page's module and pyproject.toml, installed by pip, used by the command; nothing of the core knows of it."""
    text = page("write-one")
    module, project = (re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1] for language in ("python", "toml"))
    assert len([line for line in module.splitlines() if line]) <= 35
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "escape_lif.py").write_text(module, encoding="utf-8")
    (tmp_path / "plugin" / "pyproject.toml").write_text(project, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps"]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), str(tmp_path / "plugin")], check=True, capture_output=True, timeout=120)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    reset_registry()
    counts = (np.random.default_rng(0).random((10, 200, 3)) < 0.1).astype(int)
    recording = Recording.from_counts(counts, dt_ms=5.0).save(tmp_path / "session.fitspike")
    quick = ["--progress", "off", "--no-report", "--set", "stop.max_steps=3", "--set", "simulation.max_seconds=1"]
    try:
        assert run(["fit", str(recording), "--neuron", "escape-lif", *quick, "--out", str(tmp_path / "run")]) == 0
        capsys.readouterr()
        assert run(["plugins", "check", "escape-lif"]) == 0
        assert "escape-lif:escape-lif" in capsys.readouterr().out
        assert run(["simulate", str(tmp_path / "run"), "--out", str(tmp_path / "free"), "--duration", "1"]) == 0
    finally:
        reset_registry()
        sys.modules.pop("escape_lif", None)
    with np.load(tmp_path / "run" / "params.npz") as params:
        assert params["threshold_mv"].shape == (3,) and (params["threshold_mv"] != -50.0).all()
