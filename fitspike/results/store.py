"""What of a result goes into which file of the run folder, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fitspike.params import Constraint, ParamSpec
from fitspike.results.files import plain
from fitspike.scoring import BlockSums, Score


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


def split_extras(extras: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return a solver's extras as (arrays, plain values)."""
    arrays = {name: value for name, value in extras.items() if isinstance(value, np.ndarray) and value.dtype != object}
    return arrays, {name: plain(value) for name, value in extras.items() if name not in arrays}


def score_arrays(score: Score) -> dict[str, np.ndarray]:
    """Return the block sums of a score and its values per neuron, under one flat set of names."""
    blocks = {f"block/{name}": value for name, value in score.blocks.arrays().items()}
    return blocks | {f"neuron/{name}": np.asarray(value) for name, value in score.per_neuron.items()}


def blocks_of(arrays: Mapping[str, np.ndarray]) -> BlockSums:
    """Return the block sums from what `score_arrays` stored."""
    return BlockSums.from_arrays({name.removeprefix("block/"): value for name, value in arrays.items() if name.startswith("block/")})
