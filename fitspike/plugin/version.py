"""The version of the plugin interface, and whether a plugin made for another one can be loaded."""

from __future__ import annotations

from typing import Any

API_VERSION = (1, 0)
"""Major changes break plugins, minor ones add to the interface."""


def api_problem(wanted: Any) -> str | None:
    """Return why a plugin with `FITSPIKE_API = wanted` cannot be loaded here, or None."""
    is_pair = isinstance(wanted, tuple) and len(wanted) == 2 and all(isinstance(part, int) for part in wanted)
    if not is_pair:
        return f"FITSPIKE_API is {wanted!r}. Give two integers, such as FITSPIKE_API = (1, 0)."
    ours, theirs = (".".join(map(str, version)) for version in (API_VERSION, wanted))
    if wanted[0] != API_VERSION[0]:
        return f"it is written for plugin interface {theirs}; this fitspike has {ours}. Install a version of it for {ours}."
    if wanted[1] > API_VERSION[1]:
        return f"it needs plugin interface {theirs}, newer than this fitspike's {ours}. Update fitspike, or install an older version of it."
    return None
