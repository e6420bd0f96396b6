"""The built-ins, registered through the hooks that a stranger would use. Strings are imported when first used."""

from __future__ import annotations

from fitspike.plugin.hookspecs import Register, hookimpl


@hookimpl
def fitspike_register_neuron_models(register: Register) -> None:
    """Register the built-in neuron models."""
    register("fitspike.neurons.lif:EscapeLIF", name="lif")
    register("fitspike.neurons.srm:SRM", name="srm")


@hookimpl
def fitspike_register_models(register: Register) -> None:
    """Register the built-in models."""
    register("fitspike.models.coupled_glm:CoupledGLM", name="coupled-glm")
    register("fitspike.models.spiking_network:SpikingNetwork", name="spiking-network")
    register("fitspike.models.neulvm.model:NeuLVM", name="neulvm")


@hookimpl
def fitspike_register_statistics(register: Register) -> None:
    """Register the built-in statistics."""
    register("fitspike.statistics.correlations:Autocorrelogram", name="autocorrelogram")
    register("fitspike.statistics.correlations:CrossCorrelogram", name="cross_correlogram")
    register("fitspike.statistics.correlations:NoiseCorrelation", name="noise_correlation")
    register("fitspike.statistics.correlations:SignalCorrelation", name="signal_correlation")
    register("fitspike.statistics.intervals:CV2", name="cv2")
    register("fitspike.statistics.intervals:FanoFactor", name="fano_factor")
    register("fitspike.statistics.intervals:ISICV", name="isi_cv")
    register("fitspike.statistics.intervals:ISIDistribution", name="isi_distribution")
    register("fitspike.statistics.intervals:LV", name="lv")
    register("fitspike.statistics.population:ParticipationRatio", name="participation_ratio")
    register("fitspike.statistics.population:PopulationSpectrum", name="population_spectrum")
    register("fitspike.statistics.rates:FiringRate", name="firing_rate")
    register("fitspike.statistics.rates:PSTH", name="psth")
    register("fitspike.statistics.rates:PopulationRate", name="population_rate")


@hookimpl
def fitspike_register_losses(register: Register) -> None:
    """Register the built-in losses."""
    register("fitspike.losses.hidden_rate:HiddenRate", name="hidden_rate")
    register("fitspike.losses.likelihood:NegativeLogLikelihood", name="nll")
    register("fitspike.losses.mmd:MaximumMeanDiscrepancy", name="mmd")
    register("fitspike.losses.noise_correlation:NoiseCorrelationLoss", name="noise_correlation")
    register("fitspike.losses.priors:Group", name="group")
    register("fitspike.losses.priors:L1", name="l1")
    register("fitspike.losses.priors:L2", name="l2")
    register("fitspike.losses.priors:Smoothness", name="smoothness")
    register("fitspike.losses.rate_regulariser:RateRegulariser", name="rate_regulariser")
    register("fitspike.losses.readout:Readout", name="readout")
    register("fitspike.losses.trial_matching:TrialMatching", name="trial_matching")


@hookimpl
def fitspike_register_learning_rules(register: Register) -> None:
    """Register the built-in learning rules."""
    register("fitspike.learning.bptt:BPTT", name="bptt")
    register("fitspike.learning.score_function:ScoreFunction", name="score-function")


@hookimpl
def fitspike_register_update_transforms(register: Register) -> None:
    """Register the built-in update transforms."""


@hookimpl
def fitspike_register_hardware_targets(register: Register) -> None:
    """Register the built-in hardware targets."""
    register("fitspike.hardware.simulator:Simulator", name="simulator")


@hookimpl
def fitspike_register_datasets(register: Register) -> None:
    """Register the built-in datasets; most come from the distribution fitspike-datasets."""


@hookimpl
def fitspike_register_readers(register: Register) -> None:
    """Register the built-in readers."""
    # in the order in which they are tried
    register("fitspike.recording.npz_io:NativeReader", name="native")
    register("fitspike.recording.nwb_reader:NwbReader", name="nwb")
    register("fitspike.recording.phy_reader:PhyReader", name="phy")
    register("fitspike.recording.axona_reader:AxonaReader", name="axona")
    register("fitspike.recording.simulator_reader:SonataReader", name="sonata")
    register("fitspike.recording.simulator_reader:NestReader", name="nest")
    register("fitspike.recording.neo_reader:NeoReader", name="neo")
    register("fitspike.recording.table_reader:TableReader", name="table")
