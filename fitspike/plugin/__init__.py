"""Everything a plugin may import. Names here keep their meaning within one major version of the interface; nothing else is promised."""

from importlib import import_module as _import_module
from typing import Any as _Any

from fitspike.plugin.hookspecs import hookimpl
from fitspike.plugin.version import API_VERSION

_LAZY = {
    "fitspike.citation": ("Citation",),
    "fitspike.params": ("Constraint", "ParamSpec", "constrain", "interval", "positive", "real", "sign", "simplex"),
    "fitspike.rng": ("Stream",),
    "fitspike.errors": (
        "BackendError",
        "ConformanceError",
        "FitspikeError",
        "HardwareLimitError",
        "InvalidInputError",
        "MissingDataError",
        "MissingDependencyError",
        "PluginError",
        "Problems",
        "ReadError",
        "RecordingError",
        "TooFewTrialsError",
    ),
    "fitspike.recording.recording": ("NeuronTable", "Recording", "RecordingSource", "Signal", "TrialTable"),
    "fitspike.recording.reading": ("Reader",),
    "fitspike.recording.binned": ("BinnedSpikes", "SpikeChunk"),
    "fitspike.kernels.compiling": ("cached",),
    "fitspike.kernels.microscopic": (
        "MicroscopicRun",
        "MicroscopicState",
        "PopulationConstants",
        "simulate_microscopic",
        "start_microscopic",
    ),
    "fitspike.neurons.base": ("Emission", "HasLinearForm", "HasSeparateReset", "LinearForm", "NeuronModel"),
    "fitspike.neurons.emissions": ("NEVER_DRIVE", "get_emission"),
    "fitspike.rollout": ("Driven", "LinearState", "RolloutCarry", "rollout"),
    "fitspike.statistics.base": ("Expected", "Statistic"),
    "fitspike.statistics.winners": ("dwell_times_s", "switch_bins", "winning_population"),
    "fitspike.losses.base": ("FreeRun", "HasCheck", "HasParams", "HasRecord", "HasTraces", "Loss", "LossContext", "Traces"),
    "fitspike.losses.readout": ("leaky_readout",),
    "fitspike.models.base": (
        "DataInfo",
        "HasCaveats",
        "HasClamped",
        "HasConnectivity",
        "HasIntensity",
        "HasLatents",
        "HasSelection",
        "HasSolver",
        "HasPopulations",
        "HasStability",
        "HasUnits",
        "Model",
        "Rollout",
        "SolverContext",
        "SolverReport",
        "n_uniforms",
    ),
    "fitspike.models.connectivity": ("Connectivity",),
    "fitspike.models.encoders": ("ConvEncoder", "ModuleEncoder", "StimulusEncoder"),
    "fitspike.learning.base": (
        "Batch",
        "BoundRule",
        "HasPlanCheck",
        "HasReparametrisation",
        "LearningRule",
        "TrainingPlan",
        "UpdateStep",
        "UpdateTransform",
    ),
    "fitspike.learning.bptt": ("check_can_learn", "differentiate"),
    "fitspike.learning.nest": ("fill", "leaves", "map_tensors"),
    "fitspike.learning.optimisers": ("OptimiserSlots",),
    "fitspike.hardware.base": ("HardwareConstraints", "HardwareRun", "HardwareTarget"),
    "fitspike.datasets.base": ("DataCard", "Dataset", "GroundTruth"),
    "fitspike.datasets.cards": ("read_cards",),
    "fitspike.plugin.lifecycle": ("RunInfo",),
    "fitspike.plugin.conformance.data": ("check_dataset", "check_reader"),
    "fitspike.plugin.conformance.hardware": ("check_hardware_target",),
    "fitspike.plugin.conformance.learning_rule": ("check_learning_rule",),
    "fitspike.plugin.conformance.loss": ("check_loss",),
    "fitspike.plugin.conformance.update_transform": ("check_update_transform",),
    "fitspike.plugin.conformance.model": ("check_model",),
    "fitspike.plugin.conformance.neuron_model": ("check_neuron_model",),
    "fitspike.plugin.conformance.statistic": ("check_statistic",),
}
_HOME = {name: module for module, names in _LAZY.items() for name in names}

__all__ = ["API_VERSION", "hookimpl", *_HOME]


def __getattr__(name: str) -> _Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fitspike.plugin' has no attribute {name!r}")
    value = getattr(_import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
