"""Writes docs/components.md: everything built in that has a name and settings, from its own docstring and defaults."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

from fitspike.plugin.registry import get_registry

HEAD = """# Built-in components

What can be named in a fit without a plugin, with its settings and their defaults. A setting is given in the table of the component
(`[model]` in a file, `--set model.KEY=VALUE` on the command line); `fitspike plugins list` shows what is registered on your machine,
plugins included.
"""
TABLES = ("models", "neuron_models", "losses", "learning_rules", "statistics", "datasets")
PLUGINS = ("fitspike", "datasets")


def write_page(folder: Path) -> None:
    """Write components.md into `folder` if it changed."""
    path, text = folder / "components.md", page()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for table in TABLES:
        parts.append(f"## {table.replace('_', ' ').capitalize()}\n")
        entries = sorted((entry for entry in get_registry().entries(table) if entry.plugin in PLUGINS), key=lambda entry: entry.name)
        for entry in entries:
            target = entry.load()
            if isinstance(target, type):  # cards of recordings are objects of one class: `fitspike datasets list` shows them
                parts.append(_section(entry.name, target))
    return "\n".join(parts)


def _section(name: str, target: type) -> str:
    lines = [f"### {name}", "", f"```text\n{inspect.cleandoc(target.__doc__ or '')}\n```", ""]
    rows = [f"| `{field.name}` | `{_default(field)}` |" for field in dataclasses.fields(target) if field.init]
    if rows:
        lines += ["| setting | default |", "| --- | --- |", *rows, ""]
    return "\n".join(lines)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    return repr(field.default_factory()) if field.default_factory is not dataclasses.MISSING else "required"
