"""Local derivatives and eligibility of neurons that only offer a step, against automatic differentiation (science/03, T11b)."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from eprop_networks import F64, relative
from fitspike_eprop.adjoint import adjoint
from fitspike_eprop.local import OWN_SPIKE, from_linear_form, from_step, linear_start, linear_step, model_step, states_before
from fitspike_eprop.online import online

from fitspike.plugin import Citation, LinearForm, ParamSpec, check_neuron_model

B, T, N, L = 2, 30, 4, 5


@dataclass(frozen=True)
class ThreeStates:
    """A neuron of three entries that act on one another nonlinearly: voltage, a slow current that it drives, and a trace of spikes."""

    name: ClassVar[str] = "three-states"
    citation: ClassVar[Citation] = Citation("An example of a test")

    def param_specs(self, n_neurons):
        return {"threshold": ParamSpec((n_neurons,), "1", init=1.0, axes=("neuron",))}

    def init_state(self, params, n_trials):
        zero = params["threshold"].new_zeros(n_trials, len(params["threshold"]))
        return {"v": zero, "slow": torch.stack([zero, zero], dim=-1)}

    def step_with_reset(self, params, state, current, spikes, reset_spikes, dt_ms):
        v, (w, r) = state["v"], state["slow"].unbind(-1)
        v = 0.8 * v * (1.0 - 0.7 * reset_spikes) + 0.1 * torch.tanh(v * r) - 0.2 * w + current
        w = 0.9 * w + 0.1 * torch.tanh(v) ** 2 + 0.3 * spikes
        r = 0.8 * r + spikes + 0.05 * torch.tanh(v) * w
        return {"v": v, "slow": torch.stack([w, r], dim=-1)}, v - params["threshold"] - 0.4 * w - 0.3 * torch.sin(r)

    def step(self, params, state, current, spikes, dt_ms):
        return self.step_with_reset(params, state, current, spikes, spikes, dt_ms)


class WithSlope(torch.autograd.Function):
    """Given spikes; backward, a slope by the drive."""

    @staticmethod
    def forward(ctx, drive, spikes, slope):
        ctx.save_for_backward(slope)
        return spikes.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None, None


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def case():
    """Return weights, lines, spikes of every bin, slopes, and signals for drive and spikes."""
    spikes = (torch.rand(B, T, N, generator=torch.Generator().manual_seed(9)) < 0.2).to(F64)
    slope = 0.3 * torch.rand(B, T, N, generator=torch.Generator().manual_seed(8)).to(F64)
    return 0.4 * draw(N, L), draw(B, T, L, seed=1), spikes, slope, draw(B, T, N, seed=2), draw(B, T, N, seed=3)


def shifted(spikes):
    return torch.cat([torch.zeros_like(spikes[:, :1]), spikes[:, :-1]], dim=1)


def by_autograd(step, start, own_spike):
    """Return the gradient of the weights of sum(signal_u u + signal_z z), with own spikes followed as asked for, bin by bin."""
    weight, lines, spikes, slope, of_drive, of_spikes = case()
    weight = weight.requires_grad_()
    state, z, total = start, torch.zeros(B, N, dtype=F64), 0.0
    for t in range(T):
        adapting = z.detach() if own_spike == "none" else z
        state, drive = step(state, lines[:, t] @ weight.T, adapting, z if own_spike == "all" else z.detach())
        z = WithSlope.apply(drive, spikes[:, t], slope[:, t])
        total = total + (of_drive[:, t] * drive + of_spikes[:, t] * z).sum()
    return torch.autograd.grad(total, weight)[0]


@pytest.mark.parametrize("own_spike", OWN_SPIKE)
def test_any_neuron_with_a_step_has_eligibility(own_spike):
    neuron = ThreeStates()
    params = {"threshold": torch.linspace(0.5, 1.5, N, dtype=F64)}
    step, start = model_step(neuron, params, 1.0), neuron.init_state(params, B)
    weight, lines, spikes, slope, of_drive, of_spikes = case()
    current = lines @ weight.T
    local = from_step(step, states_before(step, start, current, shifted(spikes)), current, shifted(spikes), own_spike)
    assert not local.is_diagonal
    expected = by_autograd(step, start, own_spike)
    forward, _ = online(local, slope, lines, drive_signal=of_drive, spike_signal=of_spikes)
    told = adjoint(local, slope, of_drive, of_spikes).current
    assert relative(forward, expected) < 1e-10
    assert relative(torch.einsum("ktn,ktl->nl", told, lines), expected) < 1e-10


FORMS = {
    "none": {"reset": "none"},
    "subtract": {"reset": "subtract", "reset_components": (0,), "reset_value": torch.tensor([[0.8]], dtype=F64)},
    "to_value": {"reset": "to_value", "reset_components": (0, 1), "reset_value": torch.tensor([[0.3], [0.1]], dtype=F64)},
}


@pytest.mark.parametrize("own_spike", OWN_SPIKE)
@pytest.mark.parametrize("reset", FORMS)
def test_analytic_derivatives_are_those_of_the_step(reset, own_spike):
    form = LinearForm(
        decay=torch.tensor([[0.9] * N, [0.7, 0.8, 0.9, 0.95]], dtype=F64),
        gain=torch.tensor([1.0, 0.2], dtype=F64),
        jump=torch.tensor([0.0, 1.0], dtype=F64),
        readout=torch.tensor([1.0, -0.5], dtype=F64),
        bias=torch.tensor(-1.0, dtype=F64),
        n_refractory=2,
        **FORMS[reset],
    )
    weight, lines, spikes, slope, of_drive, of_spikes = case()
    step, start = linear_step(form, N), linear_start(form, B, N)
    current, previous = lines @ weight.T, shifted(spikes)
    states = states_before(step, start, current, previous)
    automatic = from_step(lambda *given: step((given[0][0], given[0][1]), *given[1:]), states, current, previous, own_spike)
    drive = step(tuple(value.flatten(0, 1) for value in states), current.flatten(0, 1), previous.flatten(0, 1), previous.flatten(0, 1))[1]
    analytic = from_linear_form(form, drive.reshape(B, T, N), previous, own_spike, states[0])
    assert analytic.is_diagonal
    slope = torch.where(drive.reshape(B, T, N) > -30.0, slope, 0.0)
    found = []
    for local in (analytic, automatic):
        gradient, _ = online(local, slope, lines, drive_signal=of_drive, spike_signal=of_spikes)
        found.append(gradient)
    assert relative(found[0], found[1]) < 1e-10
    entries = analytic.state_spike.expand(B, T, N, 2)
    assert torch.allclose(entries, automatic.state_spike[..., :2], atol=1e-12)
    assert bool(entries.any()) == (own_spike != "none")


def test_the_neuron_of_these_tests_is_sound():
    assert "reset apart from other effects of a spike" in check_neuron_model(ThreeStates).passed
