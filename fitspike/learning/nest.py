"""Nests of tensors (tuples, lists, mappings, dataclasses): carries of any model, states of any transform."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch


def map_tensors(nest: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return the nest with the function applied to every tensor; everything else stays as it is."""
    if isinstance(nest, torch.Tensor):
        return function(nest)
    if isinstance(nest, Mapping):
        return {key: map_tensors(value, function) for key, value in nest.items()}
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        return type(nest)(*(map_tensors(value, function) for value in nest))
    if isinstance(nest, tuple | list):
        return type(nest)(map_tensors(value, function) for value in nest)
    if dataclasses.is_dataclass(nest) and not isinstance(nest, type):
        values = {f.name: map_tensors(getattr(nest, f.name), function) for f in dataclasses.fields(nest) if f.init}
        return dataclasses.replace(nest, **values)
    return nest


def detach(nest: Any) -> Any:
    """Return the nest cut from the graph that made it."""
    return map_tensors(nest, torch.Tensor.detach)


def leaves(nest: Any) -> list[torch.Tensor]:
    """Return every tensor of the nest, in a fixed order."""
    found: list[torch.Tensor] = []

    def collect(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    map_tensors(nest, collect)
    return found


def fill(template: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """Return a nest of the template's structure that holds the given tensors, in the order of `leaves`."""
    return map_tensors(template, lambda tensor: next(tensors))
