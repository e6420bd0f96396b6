"""Writes docs/plugins/interface.md: every name that a plugin may import, from its own docstring."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import fitspike.plugin
from fitspike.plugin import _LAZY

HEAD = """# What a plugin may import

These names, from `fitspike.plugin`, keep their meaning within one major version of the interface (`API_VERSION`); nothing else is promised.
`import fitspike` is allowed too. Protocols are kept, not inherited: a class that has the members is one.
"""
TITLES = {
    "citation": "Citations",
    "params": "Parameters",
    "rng": "Random numbers",
    "errors": "Errors",
    "recording": "Recordings",
    "kernels": "Kernels",
    "neurons": "Neuron models and emissions",
    "rollout": "Driving neurons",
    "statistics": "Statistics",
    "losses": "Losses",
    "models": "Models",
    "learning": "Learning rules and update transforms",
    "hardware": "Hardware targets",
    "datasets": "Datasets",
    "plugin": "Hooks and checks",
}


def write_page(folder: Path) -> None:
    """Write plugins/interface.md into `folder` if it changed."""
    path, text = folder / "plugins" / "interface.md", page()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def page() -> str:
    """Return the page."""
    groups: dict[str, list[tuple[str, str]]] = {title: [] for title in TITLES}
    for module, names in _LAZY.items():
        groups[module.split(".")[1]] += [(name, module) for name in names]
    groups["plugin"] = [("hookimpl", "fitspike.plugin.hookspecs"), ("API_VERSION", "fitspike.plugin.version"), *groups["plugin"]]
    parts = [HEAD]
    for group, members in groups.items():
        parts.append(f"## {TITLES[group]}\n")
        parts += [f"### {name}\n\n```text\n{described(name, module)}\n```\n" for name, module in members]
    return "\n".join(parts)


def described(name: str, module: str) -> str:
    """Return call and docstring of a name; of a protocol its members too."""
    thing = getattr(fitspike.plugin, name)
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return f"{name} = {thing!r}\n\n{_note_below(name, module)}".rstrip()
    lines = [f"{name}{_signature(thing)}", "", inspect.cleandoc(thing.__doc__ or "")]
    for member, value in _methods(thing):
        # A protocol's members are what a plugin writes, so that they are given whole; of other classes a line says what there is.
        text = inspect.cleandoc(value.__doc__)
        shown = text if getattr(thing, "_is_protocol", False) else text.partition("\n\n")[0]
        lines += ["", f"{member}{_signature(value)}", *(f"    {line}".rstrip() for line in shown.splitlines())]
    return "\n".join(lines)


def _methods(thing: Any) -> list[tuple[str, Any]]:
    """Return the public methods of a class by name, without their self."""
    if not inspect.isclass(thing) or issubclass(thing, Exception):
        return []
    found = []
    for name, value in vars(thing).items():
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if inspect.isfunction(function) and function.__doc__ and (not name.startswith("_") or name == "__call__"):
            found.append((name, function))
    return found


def _signature(thing: Any) -> str:
    """Return the call without annotations, which docstrings say in words; nothing for protocols and errors."""
    if inspect.isclass(thing) and (getattr(thing, "_is_protocol", False) or issubclass(thing, Exception)):
        return ""
    given = inspect.signature(thing)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in given.parameters.values() if p.name not in ("self", "cls")]
    return str(given.replace(parameters=plain, return_annotation=inspect.Signature.empty)).replace("<factory>", "...")


def _note_below(name: str, module: str) -> str:
    """Return the text that stands below the assignment of a value in its module, or an empty one."""
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    for statement, after in zip(body, body[1:], strict=False):
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
            return inspect.cleandoc(after.value.value) if is_text else ""
    return ""
