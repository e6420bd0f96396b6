"""The conformance suite over everything registered: a new entry gets its tests by registering."""

import importlib
import typing

import pytest

from fitspike.plugin.conformance.entry import CHECKS
from fitspike.plugin.kinds import KINDS
from fitspike.plugin.registry import get_registry
from fitspike.plugin.settings import settings_of

ENTRIES = [entry for kind in KINDS for entry in get_registry().entries(kind)]


# Generators are checked on a small network: their defaults make ten minutes of a hundred neurons.
SMALL = {"duration_s": 20.0, "n_neurons": 10, "n_train": 20, "n_test": 20}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.qualified_name}")
def test_registered_entry_conforms(entry):
    settings = (
        {name: value for name, value in SMALL.items() if name in (settings_of(entry.load()) or ())} if entry.kind == "datasets" else {}
    )
    assert CHECKS[entry.kind](entry.create(settings) if settings else entry.load()).passed


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.option)
def test_listed_members_are_those_of_the_protocol(kind):
    homes = {
        "neuron_models": "fitspike.neurons.base:NeuronModel",
        "models": "fitspike.models.base:Model",
        "statistics": "fitspike.statistics.base:Statistic",
        "losses": "fitspike.losses.base:Loss",
        "learning_rules": "fitspike.learning.base:LearningRule",
        "update_transforms": "fitspike.learning.base:UpdateTransform",
        "hardware_targets": "fitspike.hardware.base:HardwareTarget",
        "datasets": "fitspike.datasets.base:Dataset",
        "readers": "fitspike.recording.reading:Reader",
    }
    module, _, name = homes[kind.table].partition(":")
    protocol = getattr(importlib.import_module(module), name)
    assert issubclass(protocol, typing.Protocol)
    declared = {member for member in (*protocol.__annotations__, *vars(protocol)) if not member.startswith("_") or member == "__call__"}
    assert set(kind.members) == declared
