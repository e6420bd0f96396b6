"""Losses of two published runs, as another simulator's event-based e-prop gives them (science/03, T18).

The values are those of NEST's test suite (testsuite/pytests/test_eprop_bsshslm_2020_plasticity.py), whose recipe the science note gives.
"""

import math

import numpy as np
import pytest
import torch
from eprop_networks import F64, Network, simulate
from fitspike_eprop.adjoint import adjoint
from fitspike_eprop.online import ReadoutFilter, online

REGRESSION = [101.964356999041, 103.466731126205, 103.340607074771, 103.680244037686, 104.412775748752]
CLASSIFICATION = {
    1: [0.741152550006, 0.740388187700, 0.665785233177, 0.663644193322, 0.729428962844],
    2: [0.702163370672, 0.735555303152, 0.740354864111, 0.683882815282, 0.707841122268],
}


def weights(values):
    """Return an array as float64 of float32 precision, as the published runs store weights."""
    return torch.as_tensor(np.asarray(values, dtype=np.float32).astype(np.float64))


def gradients(form, net, run, x, error, feedback, spike_signal):
    """Return the e-prop gradients of w_in and w_rec, by either form."""
    readout = ReadoutFilter(net.kappa, net.omega)
    local = run.local(net, "adaptation")
    lines = torch.cat([x, run.previous], dim=-1)
    if form == "online":
        both, _ = online(local, run.slope, lines, spike_signal=spike_signal, readout_signal=error @ feedback.T, readout=readout)
    else:
        told = adjoint(local, run.slope, None, spike_signal + readout.signal(error, feedback), backend=form).current
        both = torch.einsum("kti,ktj->ij", told, lines)
    n_in = x.shape[-1]
    return both[:, :n_in], both[:, n_in:] * (1.0 - torch.eye(net.n_neurons, dtype=F64))


def pattern_generation(form):
    """Return the losses of five iterations of pattern generation by LIF neurons."""
    draw = np.random.RandomState(1)
    n = 100
    w_in, w_rec = (draw.randn(n, n).T / 10 for _ in range(2))
    np.fill_diagonal(w_rec, 0.0)
    w_out, feedback = draw.randn(n, 1).T / 10, weights(draw.randn(n, 1) / 10)
    x = (draw.rand(1000, n) < 0.05).astype(np.float64)
    x[0] = 0.0
    amplitude, phase = draw.uniform(0.5, 2.0, 4), draw.uniform(0.0, 2 * np.pi, 4)
    periods = (1000, 500, 333, 200)
    target = sum(a * np.sin(np.linspace(p, p + 2 * np.pi * (1000 // m), 1000)) for a, p, m in zip(amplitude, phase, periods, strict=True))
    target = target - target[0]
    target = torch.as_tensor(target / np.abs(target).max())[None, :, None]
    decay = math.exp(-1.0 / 30.0)
    none = torch.zeros(n, dtype=F64)
    net = Network(weights(w_in), weights(w_rec), weights(w_out), decay, none, none, 0.03, zeta=1 - decay, kappa=decay, omega=1 - decay)
    inputs, found = torch.as_tensor(x)[None], []
    for _ in range(5):
        with torch.no_grad():
            run = simulate(net, inputs)
        error = run.output - target
        found.append(0.5 * float(error.square().sum()))
        rate = run.spikes.mean((0, 1))
        signal = (300.0 * (rate - 0.01) / 1000).expand_as(run.spikes)
        g_in, g_rec = gradients(form, net, run, inputs, error, feedback, signal)
        net.w_in, net.w_rec = net.w_in - 1e-4 * g_in, net.w_rec - 1e-4 * g_rec
        net.w_out = net.w_out - 1e-4 * torch.einsum("kto,ktj->oj", error, run.filtered)
    return found


@pytest.mark.parametrize("form", ["numba", "online"])
def test_losses_of_pattern_generation(form):
    assert pattern_generation(form) == pytest.approx(REGRESSION, rel=1e-8)


def evidence(draw, batch):
    """Return inputs (batch, 2250, 40) and labels (batch,) of evidence accumulation."""
    group = draw.choice([0, 1], size=batch)
    p = np.array([(0.3, 0.7), (0.7, 0.3)], dtype=np.float32)
    cues = np.stack([draw.choice([0, 1], 7, p=p[g]) for g in group])
    probability = np.zeros((batch, 2250, 40))
    for k in range(batch):
        for number, side in enumerate(cues[k]):
            at = 150 * number + 50
            probability[k, at : at + 100, 10 * side : 10 * side + 10] = 0.04
    probability[:, -150:, 20:30] = 0.04
    probability[:, :, 30:] = 0.01
    x = (probability > draw.rand(batch * 2250 * 40).reshape(batch, 2250, 40)).astype(np.float64)
    x[:, 0] = 0.0
    return torch.as_tensor(x), torch.as_tensor((cues.sum(1) > 3).astype(np.int64))


def evidence_accumulation(form, batch):
    """Return the losses of five iterations of evidence accumulation by LIF and adaptive neurons."""
    draw = np.random.RandomState(1)
    n, bound = 100, math.sqrt(3 / 51)
    w_in, w_rec = draw.randn(40, n).T / math.sqrt(40), draw.randn(n, n).T / 10
    np.fill_diagonal(w_rec, 0.0)
    w_out, feedback = draw.uniform(-bound, bound, (n, 2)).T, weights(draw.randn(n, 2))
    decay, rho = math.exp(-1 / 20), math.exp(-1 / 2000)
    is_adaptive = torch.arange(n) >= 50
    beta = torch.where(is_adaptive, 1.7 * (1 - rho) / (1 - decay), 0.0).to(F64)
    net = Network(
        weights(w_in), weights(w_rec), weights(w_out), decay, torch.full((n,), rho, dtype=F64), beta, 0.6,
        kappa=decay, omega=1 - decay, n_ref=5,
    )  # fmt: skip
    names = ("w_in", "w_rec", "w_out")
    first, second = ({name: torch.zeros_like(getattr(net, name)) for name in names} for _ in range(2))
    found = []
    for step in range(1, 6):
        x, label = evidence(draw, batch)
        with torch.no_grad():
            run = simulate(net, x, at_zero=True)
        output = run.output[:, -150:]
        found.append(float(torch.nn.functional.cross_entropy(output.flatten(0, 1), label.repeat_interleave(150))))
        error = torch.zeros_like(run.output)
        error[:, -150:] = torch.softmax(output, -1) - torch.nn.functional.one_hot(label, 2)[:, None]
        signal = (300.0 * (run.spikes.mean(1, keepdim=True) - 0.01) / 2250).expand_as(run.spikes)
        g_in, g_rec = gradients(form, net, run, x, error, feedback, signal)
        found_gradients = dict(zip(names, (g_in, g_rec, torch.einsum("kto,ktj->oj", error, run.filtered)), strict=True))
        for name, gradient in found_gradients.items():
            gradient = gradient / 150 / batch
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            rate = 5e-3 * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            setattr(net, name, getattr(net, name) - rate * first[name] / (second[name].sqrt() + 1e-8))
    return found


@pytest.mark.parametrize(("form", "batch"), [("numba", 1), ("numba", 2), ("online", 1)])
def test_losses_of_evidence_accumulation(form, batch):
    assert evidence_accumulation(form, batch) == pytest.approx(CLASSIFICATION[batch], rel=1e-8)
