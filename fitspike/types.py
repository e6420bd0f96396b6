"""Names for the plain values that cross module borders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import torch

Params: TypeAlias = "Mapping[str, torch.Tensor]"
"""Constrained parameter values by name: what a model sees."""

ParamArrays: TypeAlias = Mapping[str, np.ndarray]
"""The same as numpy arrays: what solvers return, results hold and files store."""

State: TypeAlias = Any
"""Any nest (tuple, list, dict, dataclass) of tensors whose first axis is the trial."""

Carry: TypeAlias = Any
"""State handed from one chunk of a trial to the next; None at the start of a trial."""
