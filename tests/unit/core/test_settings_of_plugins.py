"""Values of settings against the kinds that annotations of the target say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import pytest

from fitspike.errors import InvalidInputError
from fitspike.plugin.registry import get_registry
from fitspike.plugin.settings import wrong_kinds


@dataclass(frozen=True)
class Target:
    count: int = 1
    size: float = 1.0
    name: str | None = None
    older: Optional[int] = None  # noqa: UP045, which a stranger may still write
    is_on: bool = False
    either: float | str = 1.0
    several: tuple[int, ...] = ()
    anything: Any = None


@pytest.mark.parametrize(
    ("name", "value", "is_right"),
    [
        ("count", 3, True),
        ("count", np.int64(3), True),
        ("count", 3.0, False),
        ("count", True, False),
        ("count", "3", False),
        ("size", 3, True),
        ("size", np.float32(3), True),
        ("size", "3", False),
        ("size", None, False),
        ("size", False, False),
        ("name", None, True),
        ("name", "a", True),
        ("name", 1, False),
        ("older", None, True),
        ("older", "x", False),
        ("is_on", np.True_, True),
        ("is_on", 1, False),
        ("either", "choose", True),
        ("either", [1.0], False),
        ("several", 7, True),  # not a plain kind: left to the target
        ("anything", object(), True),
    ],
)
def test_value_is_of_the_kind_that_the_annotation_says(name, value, is_right):
    found = wrong_kinds(Target, {name: value})
    assert found == [] if is_right else found[0].startswith(f"{name}={value!r}: expected ")
    assert wrong_kinds(Target(), {name: value}) == found


def test_annotations_that_do_not_resolve_are_left_alone():
    @dataclass(frozen=True)
    class Odd:
        size: float = 1.0
        other: NotImported = None  # noqa: F821

    assert wrong_kinds(Odd, {"size": "x"}) == []


def test_attributes_of_a_class_that_is_no_dataclass_say_nothing_of_what_it_takes():
    class Scaled:
        scale: float

        def __init__(self, scale="auto"):
            self.scale = 1.0 if scale == "auto" else scale

    assert wrong_kinds(Scaled, {"scale": "auto"}) == []


def test_all_wrong_values_are_named_at_once_with_what_was_expected():
    with pytest.raises(InvalidInputError) as raised:
        get_registry().create("models", "spiking-network", {"n_hidden": "two", "coupling_ms": "long", "self_coupling": 1})
    for text in (
        "model 'spiking-network'",
        "n_hidden='two': expected a whole number.",
        "coupling_ms='long': expected a number.",
        "true or",
    ):
        assert text in str(raised.value)
