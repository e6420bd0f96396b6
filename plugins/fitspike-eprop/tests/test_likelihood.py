"""E-prop of the likelihood of recorded spikes, hidden neurons included (science/03, T10 to T11c), written out with plain equations.

Adaptive neurons with escape noise: v_t = alpha v_{t-1} + I_t - thr z_{t-1}, a_t = rho a_{t-1} + z_{t-1}, u = v - thr - beta a.
"""

import itertools
import math

import pytest
import torch
from eprop_networks import F64, relative
from fitspike_eprop.adjoint import adjoint
from fitspike_eprop.local import from_linear_form
from fitspike_eprop.online import Eligibility, ReadoutFilter, online

from fitspike.plugin import LinearForm

THRESHOLD = 1.0
NAMES = ("weight", "bias", "beta", "alpha", "rho")


def random(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def parameters(n, n_lines, seed=0):
    """Return parameters of n neurons that n_lines inputs reach."""
    return {
        "weight": 0.6 * random(n, n_lines, seed=seed),
        "bias": 0.3 * random(n, seed=seed + 1) - 0.5,
        "beta": 0.3 + 0.1 * random(n, seed=seed + 2).tanh(),
        "alpha": 0.7 + 0.1 * random(n, seed=seed + 3).tanh(),
        "rho": 0.9 + 0.05 * random(n, seed=seed + 4).tanh(),
    }


def form(p):
    n = len(p["alpha"])
    one, zero = torch.ones(n, dtype=F64), torch.zeros(n, dtype=F64)
    return LinearForm(
        decay=torch.stack([p["alpha"], p["rho"]]),
        gain=torch.stack([one, zero]),
        jump=torch.stack([zero, one]),
        readout=torch.stack([one, -p["beta"]]),
        bias=p["bias"] - THRESHOLD,
        reset="subtract",
        reset_components=(0,),
        reset_value=(THRESHOLD / p["alpha"])[None],
    )


def drives(p, lines, spikes):
    """Return u, v and a of every bin, with the neurons' own spikes given (n_trials, n_bins, n); v and a before each bin too."""
    n_trials, n_bins, n = spikes.shape
    v = a = z = torch.zeros(n_trials, n, dtype=F64)
    found, before = [], []
    for t in range(n_bins):
        before.append((v, a))
        v = p["alpha"] * v + lines[:, t] @ p["weight"].T - THRESHOLD * z
        a = p["rho"] * a + z
        found.append(v + p["bias"] - THRESHOLD - p["beta"] * a)
        z = spikes[:, t]
    return torch.stack(found, dim=1), *(torch.stack(values, dim=1) for values in zip(*before, strict=True))


def minus_log_likelihood(link, u, spikes):
    if link == "logistic":
        return -(spikes * torch.nn.functional.logsigmoid(u) + (1 - spikes) * torch.nn.functional.logsigmoid(-u)).sum()
    hazard = torch.exp(u)
    return -(spikes * torch.log(-torch.expm1(-hazard)) - (1 - spikes) * hazard).sum()


def by_drive(link, u, spikes):
    """Return dE/du by the formulas of the note, section 5."""
    if link == "logistic":
        return torch.sigmoid(u) - spikes
    hazard = torch.exp(u)
    p = -torch.expm1(-hazard)
    return hazard / p * (p - spikes)


def recorded(n=3, n_trials=2, n_bins=40):
    spikes = (torch.rand(n_trials, n_bins, n, generator=torch.Generator().manual_seed(7)) < 0.2).to(F64)
    return spikes, torch.cat([torch.zeros_like(spikes[:, :1]), spikes[:, :-1]], dim=1)


def by_traces(p, lines, spikes, previous, link):
    """Return the gradient of all parameters forward in time; every parameter of a neuron is a line of its own eligibility."""
    with torch.no_grad():
        u, v, a = drives(p, lines, spikes)
        signal = by_drive(link, u, spikes)
        local = from_linear_form(form(p), u, previous, "none")
        n_trials, n_bins, n = u.shape
        n_lines = lines.shape[-1]
        traces = Eligibility.zeros(n_trials, n, n_lines + 4, 2, u)
        found = torch.zeros(n, n_lines + 4, dtype=F64)
        a_now = p["rho"] * a + previous
        for t in range(n_bins):
            now, zero = local.at(t), torch.zeros(n_trials, n, dtype=F64)
            x = lines[:, t, None, :].expand(-1, n, -1)
            # Direct derivatives of (v', a') and u by weights, bias, beta, alpha and rho; u = v' + b - thr - beta a'.
            of_v = torch.cat([x, torch.stack([zero, zero, v[:, t], zero], dim=-1)], dim=-1)
            of_a = torch.cat([torch.zeros_like(x), torch.stack([zero, zero, zero, a[:, t]], dim=-1)], dim=-1)
            own = torch.stack([zero + 1.0, -a_now[:, t], v[:, t], -p["beta"] * a[:, t]], dim=-1)
            derivative = traces.step(now, zero, [of_v, of_a], torch.cat([x, own], dim=-1))
            found += torch.einsum("kn,knl->nl", signal[:, t], derivative)
    return dict(zip(NAMES, (found[:, :n_lines], *found[:, n_lines:].unbind(-1)), strict=True))


@pytest.mark.parametrize("link", ["logistic", "hazard"])
def test_clamped_to_data_the_traces_give_the_gradient_of_the_likelihood(link):
    """T10: all parameters; T10b: one weight against central differences."""
    spikes, previous = recorded()
    lines = torch.cat([random(2, 40, 2, seed=20), previous], dim=-1)
    p = parameters(3, 5)
    found = by_traces(p, lines, spikes, previous, link)

    def loss(**changed):
        return minus_log_likelihood(link, drives({**p, **changed}, lines, spikes)[0], spikes)

    live = {name: value.clone().requires_grad_() for name, value in p.items()}
    exact = torch.autograd.grad(loss(**live), list(live.values()))
    for name, gradient in zip(NAMES, exact, strict=True):
        assert relative(found[name], gradient) < 1e-10, name
    step = torch.zeros_like(p["weight"])
    step[1, 3] = 1e-6
    difference = float(loss(weight=p["weight"] + step) - loss(weight=p["weight"] - step)) / 2e-6
    assert float(found["weight"][1, 3]) == pytest.approx(difference, rel=1e-6)


class Straight(torch.autograd.Function):
    """Given spikes; backward, sigmoid'(u)."""

    @staticmethod
    def forward(ctx, u, spikes):
        ctx.save_for_backward(u)
        return spikes.clone()

    @staticmethod
    def backward(ctx, gradient):
        p = torch.sigmoid(ctx.saved_tensors[0])
        return gradient * p * (1 - p), None


N_V, N_H, N_T, N_K = 3, 2, 30, 2


def hidden_case():
    """Return visible and hidden parameters (one alpha for all visible), data, and one sample of the hidden spikes."""
    visible, hidden = parameters(N_V, N_V + N_H, seed=30), parameters(N_H, N_V + N_H, seed=40)
    visible["alpha"] = torch.full((N_V,), 0.75, dtype=F64)
    data, _ = recorded(N_V, N_K, N_T)
    return visible, hidden, data, torch.rand(N_K, N_T, N_H, generator=torch.Generator().manual_seed(50)).to(F64)


def hidden_run(visible, hidden, data, uniforms, *, is_cut=True, feedback=None):
    """Return E, hidden spikes, hidden and visible drives; hidden spikes are numbers in hidden currents if cut, and in their own reset."""
    v_v = a_v = s = torch.zeros(N_K, N_V, dtype=F64)
    v_h = a_h = z = torch.zeros(N_K, N_H, dtype=F64)
    total, kept = 0.0, []
    for t in range(N_T):
        sees = torch.cat([s, z], dim=-1)
        numbers = torch.cat([s, z.detach() if is_cut else z], dim=-1)
        current = sees @ visible["weight"].T
        if feedback is not None:
            back = z @ feedback
            current = sees.detach() @ visible["weight"].T + back - back.detach()
        v_v = visible["alpha"] * v_v + current - THRESHOLD * s
        a_v = visible["rho"] * a_v + s
        v_h = hidden["alpha"] * v_h + numbers @ hidden["weight"].T - THRESHOLD * z.detach()
        a_h = hidden["rho"] * a_h + z
        u_v = v_v + visible["bias"] - THRESHOLD - visible["beta"] * a_v
        u_h = v_h + hidden["bias"] - THRESHOLD - hidden["beta"] * a_h
        total = total + minus_log_likelihood("logistic", u_v, data[:, t])
        s, z = data[:, t], Straight.apply(u_h, (u_h.detach() > torch.logit(uniforms[:, t])).to(F64))
        kept.append((z, u_h, u_v))
    return total, *(torch.stack(values, dim=1).detach() for values in zip(*kept, strict=True))


def hidden_gradient(visible, hidden, data, z, u_h, u_v, feedback, form_):
    """Return dE/dW of the hidden neurons by section 5 (ii)."""
    signal = (torch.sigmoid(u_v) - data) @ feedback.T  # (n_trials, n_bins, n_hidden)
    p = torch.sigmoid(u_h)
    lines = torch.cat([data, z], dim=-1)
    lines = torch.cat([torch.zeros_like(lines[:, :1]), lines[:, :-1]], dim=1)
    local = from_linear_form(form(hidden), u_h, lines[..., N_V:], "adaptation")
    readout = ReadoutFilter(float(visible["alpha"][0]), 1.0, delay=1)
    if form_ == "online":
        return online(local, p * (1 - p), lines, readout_signal=signal, readout=readout)[0]
    sent = readout.signal(torch.sigmoid(u_v) - data, feedback)
    return torch.einsum("kti,ktj->ij", adjoint(local, p * (1 - p), None, sent).current, lines)


@pytest.mark.parametrize("form_", ["online", "adjoint"])
@pytest.mark.parametrize("is_random", [False, True])
def test_hidden_neurons_are_told_through_the_recorded_ones(form_, is_random):
    """T11: a recorded neuron is a leaky readout of the hidden ones, one bin late, with its drive's error."""
    visible, hidden, data, uniforms = hidden_case()
    feedback = random(N_H, N_V, seed=60) if is_random else visible["weight"][:, N_V:].T
    weight = hidden["weight"].clone().requires_grad_()
    run = hidden_run(visible, {**hidden, "weight": weight}, data, uniforms, feedback=feedback if is_random else None)
    (exact,) = torch.autograd.grad(run[0], weight)
    assert 0.05 < float(run[1].mean()) < 0.6
    assert relative(hidden_gradient(visible, hidden, data, *run[1:], feedback, form_), exact) < 1e-10


def test_without_connections_among_hidden_neurons_that_is_back_propagation():
    """T11, second half: nothing cut but the reset, W_HH = 0."""
    visible, hidden, data, uniforms = hidden_case()
    hidden["weight"][:, N_V:] = 0.0
    weight = hidden["weight"].clone().requires_grad_()
    run = hidden_run(visible, {**hidden, "weight": weight}, data, uniforms, is_cut=False)
    (exact,) = torch.autograd.grad(run[0], weight)
    found = hidden_gradient(visible, hidden, data, *run[1:], visible["weight"][:, N_V:].T, "online")
    assert relative(found[:, :N_V], exact[:, :N_V]) < 1e-10


def test_score_function_with_traces_is_unbiased():
    """T11c: mean over all 2^10 hidden spike trains of R_t (z - p) du/dW = gradient of E[log p(recorded | hidden)].

    Two recorded and two hidden adaptive neurons, five bins; own spikes are given, so that none is followed. R_t is what comes after bin t.
    """
    n_bins = 5
    visible, hidden = parameters(2, 4, seed=70), parameters(2, 4, seed=80)
    data = torch.tensor([[1, 0], [0, 0], [0, 1], [1, 1], [0, 1]], dtype=F64)[None]
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2 * n_bins)), dtype=F64).reshape(-1, n_bins, 2)
    weight = hidden["weight"].clone().requires_grad_()

    def log_probs(u, spikes):
        return spikes * torch.nn.functional.logsigmoid(u) + (1 - spikes) * torch.nn.functional.logsigmoid(-u)

    seen = data.expand(len(every), -1, -1)
    lines = torch.cat([seen, every], dim=-1)
    lines = torch.cat([torch.zeros_like(lines[:, :1]), lines[:, :-1]], dim=1)
    of_data = log_probs(drives(visible, lines, seen)[0], seen).sum(-1)  # (n_trains, n_bins)
    u_h = drives({**hidden, "weight": weight}, lines, every)[0]
    log_p_hidden = log_probs(u_h, every).sum((1, 2))
    assert math.isclose(float(log_p_hidden.detach().exp().sum()), 1.0, rel_tol=1e-12)
    (exact,) = torch.autograd.grad((log_p_hidden.exp() * of_data.sum(-1)).sum(), weight)

    u_h, weight_of = u_h.detach(), log_p_hidden.detach().exp()
    later = of_data.flip(1).cumsum(1).flip(1) - of_data  # sum over the bins after t
    local = from_linear_form(form(hidden), u_h, lines[..., 2:], "none")
    signal = weight_of[:, None, None] * later.unsqueeze(-1) * (every - torch.sigmoid(u_h))
    found, _ = online(local, torch.zeros_like(u_h), lines, drive_signal=signal)
    assert relative(found, exact) < 1e-10
