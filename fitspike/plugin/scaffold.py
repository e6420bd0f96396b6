"""Writing a new plugin: packaging, a working example of its kind, and a test that runs the conformance suite."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from fitspike import __version__
from fitspike.errors import Problems
from fitspike.plugin.kinds import Kind
from fitspike.plugin.registry import Registry
from fitspike.plugin.version import API_VERSION

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def write_plugin(folder: Path, name: str, kind: Kind, registry: Registry) -> list[Path]:
    """Write a plugin called `name` that registers one thing of a kind, under that name; return the files written.

    Raises
    ------
    InvalidInputError
        With every problem: a name not of the form "my-plugin" or already in use, a folder that is there and not empty.
    """
    problems = Problems("cannot write the plugin")
    module = f"fitspike_{name.replace('-', '_')}"
    if not _NAME.fullmatch(name):
        problems.add(f"{name!r} is no name for a plugin. Use small letters, digits and single hyphens, such as my-neuron.")
    elif (user := _user_of(name, module, kind, registry)) is not None:
        problems.add(f"the name {name!r} is in use: {user}. Choose another one.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        problems.add(f"{folder} exists and is {'not empty' if folder.is_dir() else 'no folder'}. Choose another place with --out.")
    problems.raise_if_any()
    example = _template(f"{kind.option}.py")
    values = {
        "name": name,
        "distribution": f"fitspike-{name}",
        "module": module,
        "class_name": _class_name(name, kind, example),
        "kind": kind.label,
        "a_kind": f"{'an' if kind.label[0] in 'aeiou' else 'a'} {kind.label}",
        "hook": kind.hook,
        "api": API_VERSION,
        "fitspike": ".".join(__version__.split(".")[:2]),
    }
    texts = {
        "pyproject.toml": _template("pyproject.toml"),
        "README.md": _template("README.md"),
        f"{module}.py": example,
        "tests/test_conformance.py": _template(f"{kind.option}.test.py"),
    }
    written = []
    for path, text in texts.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(text).substitute(values), encoding="utf-8")
        written.append(target)
    return written


def _template(name: str) -> str:
    return (files("fitspike.plugin") / "templates" / f"{name}.template").read_text(encoding="utf-8")


def _user_of(name: str, module: str, kind: Kind, registry: Registry) -> str | None:
    """Return who has a name already, as a plugin, as something of the kind or as a module; None if it is free."""
    if name in {record.name for record in registry.records()}:
        return "a plugin has it"
    if name in {one for entry in registry.entries(kind.table) for one in (entry.name, *entry.aliases)}:
        return f"there is a {kind.label} {name!r}"
    return f"there is a module {module}" if find_spec(module) is not None else None


def _class_name(name: str, kind: Kind, example: str) -> str:
    """Return MyNeuron for my-neuron, with the kind behind it if Python or the example uses that word already."""
    plain = "".join(part.capitalize() for part in name.split("-"))
    is_used = keyword.iskeyword(plain) or re.search(rf"\b{plain}\b", example) is not None
    return plain + kind.label.title().replace(" ", "") if is_used else plain
