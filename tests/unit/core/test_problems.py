"""Collected problems are raised together, each once."""

import pytest

from fitspike.errors import InvalidInputError, Problems


def test_the_same_problem_found_twice_is_told_once():
    problems = Problems("cannot fit")
    problems.add("dampening=2.")
    problems.add_error(InvalidInputError("dampening=2."))
    problems.add("dt_ms=0.")
    with pytest.raises(InvalidInputError) as caught:
        problems.raise_if_any()
    assert str(caught.value) == "cannot fit, 2 problems:\n  1. dampening=2.\n  2. dt_ms=0."
