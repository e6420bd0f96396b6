"""Examples in the documentation run as written (`make examples`).

A page whose first line is `<!-- examples: run -->` is run in an empty folder: its ```console blocks (lines that begin with "$ fitspike")
and ```python blocks, in order, the latter in one namespace. Other languages (bash, toml, text) are not run.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from fitspike.cli.main import run

DOCS = Path(__file__).parents[2] / "docs"
MARK = "<!-- examples: run -->"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if path.read_text(encoding="utf-8").startswith(MARK)]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_there_are_pages_with_examples():
    assert {path.name for path in PAGES} >= {"start.md", "concepts.md"}


@pytest.mark.examples
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "__docs__"}
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert blocks, f"{page} is marked to run but has no example"
    for language, text in blocks:
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(text, str(page), "exec"), namespace)
            continue
        for line in text.splitlines():
            if not line.startswith("$ "):
                continue
            words = shlex.split(line.removeprefix("$ "))
            assert words[0] == "fitspike", f"only fitspike commands are run, not {words[0]}"
            output, messages = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(messages):
                status = run(words[1:])
            assert status == 0, f"{line}\n{output.getvalue()}\n{messages.getvalue()}"


@pytest.mark.examples
@pytest.mark.parametrize("name", ["pattern-generation", "store-recall"])
def test_example_configurations_of_tasks_take_a_step(name, tmp_path, monkeypatch):
    """On shorter trials than those of the page."""
    pytest.importorskip("fitspike_datasets")
    pytest.importorskip("fitspike_neurons")
    monkeypatch.chdir(tmp_path)
    smaller = {"pattern-generation": ["trial_s=0.1"], "store-recall": ["symbol_ms=10", "n_trials=10"]}[name]
    assert run(["datasets", "make", name, "--out", "task", *(f"--set={one}" for one in smaller)]) == 0
    few = ["--set", "stop.max_steps=1", "--no-report"]
    assert run(["fit", "task", "--config", str(DOCS / "examples" / f"{name}.toml"), "--out", "run", *few]) == 0
    found = json.loads((tmp_path / "run" / "simulation.json").read_text(encoding="utf-8"))["targets"]["readout"]
    assert found["n_trials"] == {"pattern-generation": 1, "store-recall": 2}[name]
    assert found["readout_nmse" if name == "pattern-generation" else "readout_error"] >= 0.0
