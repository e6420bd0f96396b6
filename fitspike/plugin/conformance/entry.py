"""The suite by kind: which check fits a registered entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fitspike.errors import ConformanceError, FitspikeError
from fitspike.plugin.conformance.data import check_dataset, check_reader
from fitspike.plugin.conformance.hardware import check_hardware_target
from fitspike.plugin.conformance.learning_rule import check_learning_rule
from fitspike.plugin.conformance.loss import check_loss
from fitspike.plugin.conformance.model import check_model
from fitspike.plugin.conformance.neuron_model import check_neuron_model
from fitspike.plugin.conformance.report import Outcome
from fitspike.plugin.conformance.statistic import check_statistic
from fitspike.plugin.conformance.update_transform import check_update_transform
from fitspike.plugin.registry import Entry

CHECKS: dict[str, Callable[[Any], Outcome]] = {
    "neuron_models": check_neuron_model,
    "models": check_model,
    "statistics": check_statistic,
    "losses": check_loss,
    "learning_rules": check_learning_rule,
    "update_transforms": check_update_transform,
    "hardware_targets": check_hardware_target,
    "datasets": check_dataset,
    "readers": check_reader,
}


def check_entry(entry: Entry) -> Outcome:
    """Return the outcome of the suite for one registered entry; failures are part of it, not raised."""
    try:
        return CHECKS[entry.kind](entry.load())
    except ConformanceError as error:
        return error.outcome
    except FitspikeError as error:
        return Outcome((), (), (str(error),))
