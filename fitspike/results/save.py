"""Write a result into a run folder, part by part as a fit gets to know it, or whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fitspike.citation import to_bibtex
from fitspike.params import Constraint, ParamSpec
from fitspike.results.files import plain
from fitspike.results.run_dir import RunFolder
from fitspike.toml_text import to_toml

if TYPE_CHECKING:
    from fitspike.results.result import FitResult


def write_fitted(folder: RunFolder, result: FitResult) -> None:
    """Write parameters, their description and how the fit ended; from here on the result can be loaded."""
    arrays = {name: value for name, value in result.extras.items() if isinstance(value, np.ndarray) and value.dtype != object}
    if arrays:
        folder.write_arrays("extras.npz", arrays)
    folder.write_json("extras.json", {name: value for name, value in result.extras.items() if name not in arrays})
    folder.write_json("specs.json", {"params": specs_to_json(result.specs), "model": result.model.to_json(), "data": result.data.to_json()})
    write_ending(folder, result)
    folder.write_text("citations.bib", to_bibtex(result.citation_list))
    folder.write_arrays("params.npz", result.params)


def write_ending(folder: RunFolder, result: FitResult) -> None:
    """Write status, message, notes and citations."""
    folder.write_json(
        "fit.json",
        {
            "status": result.status.name,
            "advice": result.status.advice,
            "message": result.message,
            "notes": list(result.notes),
            "citations": [asdict(one) for one in result.citation_list],
        },
    )


def write_judged(folder: RunFolder, result: FitResult) -> None:
    """Write scores, the comparison with a free simulation, and the numbers behind the figures."""
    if result.blocks is not None:
        folder.write_json("score.json", result.scores)
        blocks = {f"block/{name}": value for name, value in result.blocks.arrays().items()}
        folder.write_arrays("score_blocks.npz", blocks | {f"neuron/{name}": value for name, value in result.score_details.items()})
    folder.write_json("simulation.json", result.simulation)
    folder.write_arrays("statistics.npz", result.statistics)


def save_result(result: FitResult, path: Path) -> Path:
    """Write a whole result into a new folder and return its path; see `FitResult.save`."""
    folder = RunFolder.create(path)
    folder.write_json("provenance.json", result.provenance.to_json())
    folder.write_text("run.toml", to_toml(result.config))
    folder.write_text("history.jsonl", "".join(json.dumps(plain(row)) + "\n" for row in result.history))
    if result.selection:
        folder.write_json("selection.json", {**result.selection, "model": result.model.to_json()})
    write_fitted(folder, result)
    write_judged(folder, result)
    folder.set_status("finished" if result.status.is_usable else "failed", stage="done", message=result.message, status=result.status.name)
    return path


def specs_to_json(specs: Mapping[str, ParamSpec]) -> dict[str, Any]:
    """Return the description of each parameter as plain values; initial values are left out."""
    return {
        name: {
            "shape": list(spec.shape),
            "axes": list(spec.axes),
            "unit": spec.unit,
            "constraint": {
                "kind": spec.constraint.kind,
                "low": spec.constraint.low,
                "high": spec.constraint.high,
                "signs": plain(spec.constraint.signs),
            },
            "trainable": spec.trainable,
            "symbol": spec.symbol,
            "source": spec.source,
            "doc": spec.doc,
        }
        for name, spec in specs.items()
    }


def specs_from_json(values: Mapping[str, Any]) -> dict[str, ParamSpec]:
    """Return the specs of plain values."""
    specs = {}
    for name, one in values.items():
        constraint = one["constraint"]
        specs[name] = ParamSpec(
            shape=tuple(one["shape"]),
            unit=one["unit"],
            constraint=Constraint(constraint["kind"], constraint["low"], constraint["high"], _as_tuples(constraint["signs"])),
            trainable=one["trainable"],
            axes=tuple(one["axes"]),
            symbol=one["symbol"],
            source=one["source"],
            doc=one["doc"],
        )
    return specs


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value
