"""The shipped suite over every neuron model of this distribution, with other settings than the defaults that the contract tests see."""

import pytest
from fitspike_neurons.adex import AdEx
from fitspike_neurons.alif import ALIF
from fitspike_neurons.current_lif import CurrentLIF
from fitspike_neurons.gif import GIF
from fitspike_neurons.izhikevich import PATTERNS, Izhikevich

from fitspike.plugin import check_neuron_model

NEURONS = [
    ALIF(n_adaptive=1, refractory_ms=2.0, input_scaling="one_minus_decay", train=("tau_m_ms", "threshold", "adaptation", "tau_adapt_ms")),
    CurrentLIF(tau_s_ms=40.0, rest_mv=-70.0, softness_mv=1.5, refractory_ms=3.0, train=("tau_m_ms", "tau_s_ms", "rest_mv", "threshold_mv")),
    GIF(current_tau_ms=(), rest_mv=-70.0, softness_mv=1.5, train=("conductance_ns", "reset_mv", "threshold_jump_mv")),
    AdEx(n_substeps=1, peak_mv=-30.0, train=("conductance_ns", "jump_pa")),
    Izhikevich(n_substeps=2, **PATTERNS["fast-spiking"], train=("a", "d")),
]


@pytest.mark.parametrize("neuron", NEURONS, ids=lambda one: one.name)
def test_neuron_model_conforms(neuron):
    assert check_neuron_model(neuron).skipped == ()
