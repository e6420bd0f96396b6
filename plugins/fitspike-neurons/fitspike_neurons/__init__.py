"""Neuron models for fitspike: adaptive LIF (LSNN), LIF with current synapses, GIF, adaptive exponential, Izhikevich."""

from fitspike.plugin import hookimpl


@hookimpl
def fitspike_register_neuron_models(register):
    """Register the neuron models."""
    register("fitspike_neurons.adex:AdEx", name="adex")
    register("fitspike_neurons.alif:ALIF", name="alif")
    register("fitspike_neurons.current_lif:CurrentLIF", name="current-lif")
    register("fitspike_neurons.gif:GIF", name="gif")
    register("fitspike_neurons.izhikevich:Izhikevich", name="izhikevich")
