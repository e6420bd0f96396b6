"""Plugins made for a test: a module and its installation record in a folder on the path, found by the real loader."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fitspike.plugin.registry import get_registry, reset_registry


class PluginFolder:
    """A folder on `sys.path` into which plugins are installed as pip would: modules and a .dist-info with entry points."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, name: str, source: str, *, version: str = "1.0", distribution: str | None = None, entry: str | None = None) -> None:
        """Write a one-module distribution whose entry point is called `name`."""
        distribution = distribution or f"fitspike-{name}"
        module = distribution.replace("-", "_")
        (self.path / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = self.path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[fitspike]\n{name} = {entry or module}\n", encoding="utf-8")

    def environment(self, **variables: str) -> dict[str, str]:
        """Return an environment in which another process sees these plugins."""
        paths = [str(self.path), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **variables}

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command line in a process of its own."""
        command = [sys.executable, "-m", "fitspike", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment(**variables), timeout=300, cwd=self.path)


@pytest.fixture
def plugin_folder(tmp_path, monkeypatch):
    """A folder for plugins; the registry is discovered anew in the test and forgotten after it."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv("FITSPIKE_PLUGINS", raising=False)
    before = set(sys.modules)
    reset_registry()
    yield PluginFolder(folder)
    reset_registry()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def registry_of(plugin_folder):
    """The registry that sees what the test has installed."""

    def make():
        reset_registry()
        return get_registry()

    return make
