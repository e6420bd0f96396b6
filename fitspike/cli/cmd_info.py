"""`fitspike info`: what a bug report should say: versions, machine, kernels and why each backend is or is not taken."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from fitspike import __version__
from fitspike.cli.output import print_json, print_table
from fitspike.kernels import dispatch
from fitspike.plugin.registry import get_registry

_PACKAGES = (
    "numpy",
    "scipy",
    "torch",
    "numba",
    "neo",
    "elephant",
    "matplotlib",
    "click",
    "rich",
    "pydantic",
    "pluggy",
    "pooch",
    "jinja2",
    "pynwb",
    "nixio",
    "h5py",
    "pynapple",
    "triton",
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(as_json: bool) -> None:
    """Show versions, devices, and for each kernel which backend runs and why."""
    about = gather()
    if as_json:
        print_json(about)
        return
    packages = ((name, found or "not installed") for name, found in about["packages"].items())
    print_table(("package", "version"), [("fitspike", about["fitspike"]), ("python", about["python"]), *packages])
    click.echo()
    print_table(("machine", ""), about["machine"].items())
    click.echo()
    rows = [
        (op, row["backend"], "taken" if row["chosen"] else "", row["reason"])
        for op, backends in about["kernels"].items()
        for row in backends
    ]
    print_table(("kernel", "backend", "auto", "reason"), rows)
    click.echo()
    print_table(("plugin", "version", "status"), [(name, one["version"], one["status"]) for name, one in about["plugins"].items()])


def gather() -> dict[str, Any]:
    """Return everything that `info` shows, as plain values."""
    records = get_registry().records()
    return {
        "fitspike": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "machine": {
            "system": platform.platform(),
            "executable": sys.executable,
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "devices": ", ".join(_devices()),
            "FITSPIKE_DATA": os.environ.get("FITSPIKE_DATA", "not set"),
            "FITSPIKE_PLUGINS": os.environ.get("FITSPIKE_PLUGINS", "not set"),
        },
        "kernels": {op: [row._asdict() for row in dispatch.explain(op)] for op in dispatch.operations()},
        "plugins": {record.name: {"version": record.version, "status": record.status, "problem": record.error} for record in records},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    """Return what torch can compute on."""
    import torch

    gpus = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *gpus]
