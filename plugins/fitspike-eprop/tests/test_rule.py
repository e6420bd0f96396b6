"""The rule on networks that are fitted to recordings: its forms agree, it is back-propagation where theory says so, and it refuses."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fitspike_eprop.feedback import FeedbackWeights
from fitspike_eprop.rule import EProp

from fitspike.learning.bptt import BPTT
from fitspike.losses.hidden_rate import HiddenRate
from fitspike.losses.likelihood import NegativeLogLikelihood
from fitspike.losses.total import record_all
from fitspike.losses.trial_matching import TrialMatching
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.emissions import Bernoulli
from fitspike.neurons.lif import EscapeLIF
from fitspike.neurons.srm import SRM
from fitspike.params import initial_params, to_raw
from fitspike.plugin import Batch, Citation, InvalidInputError, ParamSpec, Recording, Stream, check_learning_rule
from fitspike.plugin.registry import get_registry

NLL = {"nll": (NegativeLogLikelihood(), 1.0)}
NEURONS = (SRM(), SRM(tau_m_ms=8.0), EscapeLIF(refractory_ms=3.0), EscapeLIF(reset="subtract"))


def recording(n_bins=60):
    uniforms = Stream(1, "spikes").uniforms(4, range(n_bins), 4)
    return Recording.from_counts([(trial < 0.15).astype(np.int64) for trial in uniforms], dt_ms=1.0, conditions=["a"] * 4)


def setting(model, losses, n_bins=60):
    binned = recording(n_bins).bin(1.0)
    specs = model.param_specs(binned.info())
    raw = to_raw(specs, initial_params(specs, Stream(2, "init")), dtype=torch.float64)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in raw.values():
            if value.requires_grad:
                value += 0.05 * torch.randn(value.shape, generator=noise, dtype=torch.float64)
    return binned, specs, raw


def directions(rule, model, losses, pieces=((0, 60),)):
    """Return the sum of the directions over chunks, each handing its carry on."""
    n_bins = pieces[-1][1]
    binned, specs, raw = setting(model, losses, n_bins)
    bound = rule.bind(model, specs, losses, binned.info(), Stream(3, "rule"))
    total, carry, recorded = {}, None, record_all(losses, binned)
    for first, stop in pieces:
        batch = Batch(binned.chunk(range(4), first, stop - first), carry, Stream(4, "batch"), recorded=recorded)
        found, _ = bound.directions(raw, batch)
        carry = batch.new_carry
        for name, value in found.items():
            total[name] = total.get(name, 0.0) + (stop - first) / n_bins * value
    return total


def worst(a, b):
    scale = max(float(value.abs().max()) for value in b.values())
    assert scale > 0
    return max(float((a[name] - b[name]).abs().max()) for name in b) / scale


@pytest.mark.parametrize("own_spike", ["none", "adaptation", "all"])
@pytest.mark.parametrize("feedback", ["symmetric", "random"])
@pytest.mark.parametrize("neuron", NEURONS, ids=range(len(NEURONS)))
def test_reverse_recursion_is_the_cut_graph(neuron, feedback, own_spike):
    """Likelihood with hidden neurons, their rate, and a statistic of simulated spikes, all at once, over two chunks."""
    model = SpikingNetwork(neuron=neuron, n_hidden=3, n_coupling=2, coupling_init=3.0)
    losses = {**NLL, "hidden_rate": (HiddenRate(), 0.3), "tm": (TrialMatching(window_ms=20.0), 0.5)}
    rules = [EProp(implementation=form, feedback=feedback, own_spike=own_spike) for form in ("adjoint", "autodiff")]
    found = [directions(rule, model, losses, ((0, 30), (30, 60))) for rule in rules]
    assert worst(*found) < 1e-10


@pytest.mark.parametrize("own_spike", ["adaptation", "all"])
def test_chunks_that_no_likelihood_looks_at_hand_their_carry_on(own_spike):
    """The carry then comes from a pass without gradient."""
    model, losses = SpikingNetwork(neuron=EscapeLIF()), {"tm": (TrialMatching(window_ms=20.0), 0.5)}
    rules = [EProp(implementation=form, own_spike=own_spike) for form in ("adjoint", "autodiff")]
    assert worst(*(directions(rule, model, losses, ((0, 30), (30, 60))) for rule in rules)) < 1e-10


@pytest.mark.parametrize("neuron", NEURONS, ids=range(len(NEURONS)))
def test_without_connections_among_hidden_neurons_it_is_back_propagation(neuron):
    model = SpikingNetwork(neuron=neuron, n_hidden=3, connect=("->", "hidden->", "->hidden"))
    exact = directions(BPTT(), model, NLL)
    assert worst(directions(EProp(own_spike="all"), model, NLL), exact) < 1e-10
    assert worst(directions(EProp(own_spike="all", feedback="random"), model, NLL), exact) > 1e-3


@pytest.mark.parametrize("neuron", NEURONS, ids=range(len(NEURONS)))
def test_online_the_chunks_of_a_trial_add_up_to_the_whole(neuron):
    """T16; chunks that are cut from one another do not."""
    model, pieces = SpikingNetwork(neuron=neuron), ((0, 17), (17, 18), (18, 60))
    exact = directions(BPTT(), model, NLL)
    assert worst(directions(EProp(implementation="online"), model, NLL, pieces), exact) < 1e-10
    if neuron in (NEURONS[1], NEURONS[3]):
        assert worst(directions(EProp(), model, NLL, pieces), exact) > 1e-6


@pytest.mark.parametrize("name", get_registry().names("neuron_models"))
def test_every_registered_neuron_learns_by_its_eligibility(name):
    """Hidden ones as the cut graph says; recorded ones, online in two pieces, as back-propagation through the whole."""
    neuron = get_registry().create("neuron_models", name)
    hidden, losses = SpikingNetwork(neuron=neuron, n_hidden=2), {**NLL, "tm": (TrialMatching(window_ms=20.0), 0.5)}
    found = [directions(EProp(implementation=form), hidden, losses, ((0, 24),)) for form in ("adjoint", "autodiff")]
    assert worst(*found) < 1e-10
    recorded, pieces = SpikingNetwork(neuron=neuron), ((0, 9), (9, 24))
    exact = directions(BPTT(), recorded, NLL, ((0, 24),))
    assert worst(directions(EProp(implementation="online"), recorded, NLL, pieces), exact) < 1e-10


def refused(rule, model, losses=NLL):
    binned = recording().bin(1.0)
    with pytest.raises(InvalidInputError) as caught:
        rule.bind(model, model.param_specs(binned.info()), losses, binned.info(), Stream(0, "rule"))
    return str(caught.value)


def test_what_it_cannot_serve_is_refused_with_what_to_do():
    assert "rule='bptt'" in refused(EProp(), CoupledGLM())
    hidden = SpikingNetwork(n_hidden=2)
    assert "implementation='adjoint'" in refused(EProp(implementation="online"), hidden)
    assert "causal" in refused(EProp(implementation="online"), hidden, {"hidden_rate": (HiddenRate(), 1.0)})
    with pytest.raises(InvalidInputError, match="unknown"):
        EProp(feedback="symetric")
    with pytest.raises(InvalidInputError, match="feedback_scale=inf must be positive and finite"):
        EProp(feedback_scale=float("inf"))
    assert "'latent_bias' (20,) is shared" in refused(EProp(implementation="online"), SpikingNetwork(trial_latents=1))
    assert "Use own_spike='all' or own_spike='none'" in refused(EProp(), SpikingNetwork(neuron=Memoryless(), n_hidden=2))
    assert "has no pseudo-derivative (`slope`)" in refused(EProp(), WithoutSlope(n_hidden=2))
    assert "of torch.int64" in refused(EProp(), SpikingNetwork(neuron=Counting()))


class WithoutSlope(SpikingNetwork):
    def emission_object(self):
        return SimpleNamespace(name="hard", is_binary=True, drive_for=Bernoulli().drive_for)


class Counting(SRM):
    def init_state(self, params, n_trials):
        return *super().init_state(params, n_trials), torch.zeros(n_trials, len(params["bias"]), dtype=torch.int64)


class Memoryless:
    """A neuron without a state: its drive is bias and current."""

    name = "memoryless"
    citation = Citation("An example of a test")

    def param_specs(self, n_neurons):
        return {"bias": ParamSpec((n_neurons,), "1", init=-2.0, axes=("neuron",))}

    def init_state(self, params, n_trials):
        return ()

    def step(self, params, state, current, spikes, dt_ms):
        return (), current + params["bias"]


@pytest.mark.parametrize("own_spike", ["none", "all"])
def test_a_neuron_without_a_state(own_spike):
    model = SpikingNetwork(neuron=Memoryless(), n_hidden=3, connect=("->", "hidden->", "->hidden"))
    assert worst(directions(EProp(own_spike=own_spike), model, NLL), directions(BPTT(), model, NLL)) < 1e-10
    recorded = SpikingNetwork(neuron=Memoryless())
    assert worst(directions(EProp(), recorded, NLL), directions(BPTT(), recorded, NLL)) < 1e-10


def test_random_feedback_has_the_standard_deviation_asked_for_and_adaptive_feedback_begins_there():
    """Against the textbook's sampling errors: of 60000 normals the deviation has a standard error of 0.3 %, the mean one of 0.4 %."""
    weight = torch.randn(200, 100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    random = FeedbackWeights("random", 2.0, 0.0, Stream(5, "feedback")).of("w", weight)
    expected = 2.0 / np.sqrt(300)
    assert random.shape == weight.shape and random.std().item() == pytest.approx(expected, rel=0.02)
    assert abs(random.mean().item()) < 0.02 * expected
    adaptive = FeedbackWeights("adaptive", 2.0, 0.1, Stream(5, "feedback"))
    torch.testing.assert_close(adaptive.of("w", weight), random, rtol=0.0, atol=1e-12)
    moved = weight + 1.0
    torch.testing.assert_close(adaptive.of("w", moved), random + 1.0, rtol=0.0, atol=1e-12)  # takes part in the forward weights' updates
    adaptive.after_step()
    torch.testing.assert_close(adaptive.of("w", moved), moved + 0.9 * (random - weight), rtol=0.0, atol=1e-12)


def test_neurons_that_look_at_others_are_refused():
    class Mixing(SRM):
        def step(self, params, state, current, spikes, dt_ms):
            state, drive = super().step(params, state, current, spikes, dt_ms)
            return state, drive + drive.mean(1, keepdim=True)

    assert "lets one neuron act on another" in refused(EProp(), SpikingNetwork(neuron=Mixing()))


@pytest.mark.parametrize("form", ["adjoint", "online", "autodiff"])
def test_conformance(form):
    assert "one step lowers the loss" in check_learning_rule(EProp(implementation=form)).passed
