"""E-prop's gradients against automatic differentiation of graphs that are cut by hand (science/03, T4 to T9, T15 to T17)."""

import math

import pytest
import torch
from eprop_networks import F64, Network, relative, simulate
from fitspike_eprop.adjoint import adjoint
from fitspike_eprop.local import from_linear_form
from fitspike_eprop.online import Eligibility, ReadoutFilter, online

N, N_IN, N_OUT, B, T = 6, 4, 3, 2, 60


def network(*, recurrent=1.0, adaptive=3, beta=0.3):
    """Return LIF and adaptive neurons that fire now and then, n_ref 3."""
    draw = torch.Generator().manual_seed(3)
    w_in, w_rec, w_out = (torch.randn(shape, generator=draw, dtype=F64) for shape in ((N, N_IN), (N, N), (N_OUT, N)))
    w_rec.fill_diagonal_(0.0)
    is_adaptive = torch.arange(N) >= N - adaptive
    return Network(
        0.5 * w_in, 0.5 * recurrent * w_rec, w_out, math.exp(-1 / 8), torch.full((N,), math.exp(-1 / 30), dtype=F64),
        torch.where(is_adaptive, beta, 0.0).to(F64), 0.6, kappa=0.85, omega=0.7, n_ref=3,
    )  # fmt: skip


def inputs():
    draw = torch.Generator().manual_seed(4)
    x = (torch.rand(B, T, N_IN, generator=draw) < 0.3).to(F64)
    return x, torch.randn(B, T, N_OUT, generator=draw, dtype=F64)


def by_autograd(net, x, target, **how):
    """Return gradients of w_in and w_rec (diagonal 0) of 1/2 sum (y - y*)^2, and the run."""
    net.w_in, net.w_rec = (value.clone().requires_grad_() for value in (net.w_in, net.w_rec))
    run = simulate(net, x, **how)
    assert 0.03 < float(run.spikes.detach().mean()) < 0.3
    (0.5 * (run.output - target).square().sum()).backward()
    return net.w_in.grad, net.w_rec.grad * (1 - torch.eye(N, dtype=F64)), run


def by_online(net, x, target, run, own_spike="adaptation", feedback=None):
    """Return the same by traces."""
    error = (run.output - target).detach()
    feedback = net.w_out.T if feedback is None else feedback
    lines = torch.cat([x, run.previous], dim=-1)
    readout = ReadoutFilter(net.kappa, net.omega)
    found, _ = online(run.local(net, own_spike), run.slope, lines, readout_signal=error @ feedback.T, readout=readout)
    return found[:, :N_IN], found[:, N_IN:] * (1 - torch.eye(N, dtype=F64))


def by_adjoint(net, x, target, run, own_spike="adaptation", feedback=None, backend="auto", **how):
    error = (run.output - target).detach()
    feedback = net.w_out.T if feedback is None else feedback
    signal = ReadoutFilter(net.kappa, net.omega).signal(error, feedback)
    told = adjoint(run.local(net, own_spike), run.slope, None, signal, backend=backend, **how).current
    found = torch.einsum("kti,ktj->ij", told, torch.cat([x, run.previous], dim=-1))
    return found[:, :N_IN], found[:, N_IN:] * (1 - torch.eye(N, dtype=F64))


def test_traces_times_total_derivatives_of_spikes_are_back_propagation():
    """T4: with the total dE/dz, which does not follow the neuron's own adaptation, the factorisation is exact."""
    net, (x, target) = network(), inputs()
    g_in, g_rec, run = by_autograd(net, x, target)
    signal = torch.stack([main.grad for main in run.main], dim=1)
    found, _ = online(run.local(net, "adaptation"), run.slope, torch.cat([x, run.previous], dim=-1), spike_signal=signal)
    assert relative(found[:, :N_IN], g_in) < 1e-12
    assert relative(found[:, N_IN:] * (1 - torch.eye(N, dtype=F64)), g_rec) < 1e-12


def test_traces_are_the_gradient_of_the_cut_graph():
    """T5: recurrent input and reset cut, adaptation kept."""
    net, (x, target) = network(), inputs()
    g_in, g_rec, run = by_autograd(net, x, target, cut=("recurrent", "reset"))
    found_in, found_rec = by_online(net, x, target, run)
    assert relative(found_in, g_in) < 1e-10
    assert relative(found_rec, g_rec) < 1e-10


@pytest.mark.parametrize("own_spike", ["none", "adaptation", "all"])
@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_reverse_recursion_is_that_of_traces(own_spike, backend):
    """T6, for every choice of what is followed."""
    net, (x, target) = network(), inputs()
    run = simulate(net, x)
    forward = by_online(net, x, target, run, own_spike)
    for a, b in zip(by_adjoint(net, x, target, run, own_spike, backend=backend), forward, strict=True):
        assert relative(a, b) < 1e-10


def test_without_recurrent_weights_the_rest_is_back_propagation_with_the_reset_cut():
    """T7."""
    net, (x, target) = network(recurrent=0.0), inputs()
    g_in, _, run = by_autograd(net, x, target, cut=("reset",))
    assert relative(by_online(net, x, target, run)[0], g_in) < 1e-10


def test_reset_aware_traces_without_recurrent_weights_are_back_propagation():
    """T8; the traces that cut the reset are far off, so that the test can tell."""
    net, (x, target) = network(recurrent=0.0), inputs()
    g_in, _, run = by_autograd(net, x, target)
    assert relative(by_online(net, x, target, run, "all")[0], g_in) < 1e-10
    assert relative(by_online(net, x, target, run, "adaptation")[0], g_in) > 0.1


def test_random_feedback_is_a_readout_with_another_backward_matrix():
    """T9."""
    net, (x, target) = network(), inputs()
    back = torch.randn(N_OUT, N, generator=torch.Generator().manual_seed(5), dtype=F64)
    g_in, g_rec, run = by_autograd(net, x, target, cut=("recurrent", "reset"), back=back)
    for form in (by_online, by_adjoint):
        found_in, found_rec = form(net, x, target, run, feedback=back.T)
        assert relative(found_in, g_in) < 1e-10
        assert relative(found_rec, g_rec) < 1e-10
    assert relative(by_online(net, x, target, run)[0], g_in) > 0.1


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_recursion_with_recurrent_weights_and_reset_is_back_propagation(backend):
    """Section 4.3: the flag that makes the same recursion BPTT."""
    net, (x, target) = network(), inputs()
    g_in, g_rec, run = by_autograd(net, x, target)
    found = by_adjoint(net, x, target, run, "all", backend=backend, recurrent_weight=net.w_rec.detach())
    assert relative(found[0], g_in) < 1e-10
    assert relative(found[1], g_rec) < 1e-10


def test_refractory_bins_pass_nothing_on():
    """With n_ref 3 a spike blocks two bins; in them slope and derivatives of the drive are 0."""
    net, (x, _) = network(), inputs()
    run = simulate(net, x)
    local = run.local(net, "all")
    blocked = (run.spikes[:, :-1] > 0).nonzero()
    assert len(blocked) > 10
    for trial, t, neuron in blocked.tolist():
        assert float(local.at(t + 1).drive_state[trial, neuron].abs().sum()) == float(run.slope[trial, t + 1, neuron]) == 0.0


@pytest.mark.parametrize("own_spike", ["adaptation", "all"])
@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_what_a_loss_says_of_drives_in_refractory_bins_goes_nowhere(own_spike, backend):
    """The reverse recursion and the traces leave it out, whatever it is."""
    net, (x, _) = network(), inputs()
    run = simulate(net, x)
    local, lines = run.local(net, own_spike), torch.cat([x, run.previous], dim=-1)
    signal = torch.randn(run.drive.shape, generator=torch.Generator().manual_seed(6), dtype=F64)
    forward, _ = online(local, run.slope, lines, drive_signal=signal)
    is_refractory = run.drive == run.drive.min()
    assert int(is_refractory.sum()) > 20
    for told in (signal, torch.where(is_refractory, 1e3, signal)):
        found = torch.einsum("kti,ktj->ij", adjoint(local, run.slope, told, None, backend=backend).current, lines)
        assert relative(found, forward) < 1e-10


def long_trace(beta):
    """Return |e| 600 bins after one presynaptic pulse, tau_m 20, tau_a 2000, psi held at 0.25."""
    decay = math.exp(-1 / 20)
    one = torch.ones(1, dtype=F64)
    net = Network(*(one[None],) * 3, decay, one * math.exp(-1 / 2000), one * beta, 1.0)
    quiet = torch.zeros(1, 601, 1, dtype=F64)
    local = from_linear_form(net.form(), quiet, quiet, "adaptation")
    traces = Eligibility.zeros(1, 1, 1, 2, quiet)
    for t in range(601):
        pulse = torch.ones(1, 1, dtype=F64) if t == 0 else torch.zeros(1, 1, dtype=F64)
        traces.input_step(local.at(0), torch.full((1, 1), 0.25, dtype=F64), pulse)
    return abs(float(traces.trace))


def test_an_adaptive_neuron_remembers_what_a_plain_one_forgets():
    """T15: LIF below 1e-8; adaptive far above, by the closed form of the two exponentials.

    eps_a^t = (rho - beta psi) eps_a^{t-1} + psi eps_v^{t-1} with eps_v^t = alpha^t gives a sum of geometric series.
    """
    psi, beta, alpha, rho, t = 0.25, 0.0174, math.exp(-1 / 20), math.exp(-1 / 2000), 600
    assert long_trace(0.0) < 1e-8
    slow = rho - beta * psi
    eps_a = psi * (slow**t - alpha**t) / (slow - alpha)
    assert long_trace(beta) == pytest.approx(psi * abs(alpha**t - beta * eps_a), rel=1e-10)
    assert long_trace(beta) > 1e4 * long_trace(0.0)


def test_a_batch_is_the_sum_of_its_trials_and_a_trial_the_sum_of_its_pieces():
    """T16."""
    net, (x, target) = network(), inputs()
    run = simulate(net, x)
    error = (run.output - target).detach()
    lines, local = torch.cat([x, run.previous], dim=-1), run.local(net, "adaptation")
    readout, told = ReadoutFilter(net.kappa, net.omega), error @ net.w_out
    how = {"readout": readout}
    whole, _ = online(local, run.slope, lines, readout_signal=told, **how)
    single = [
        online(run_slice(local, slice(k, k + 1)), run.slope[k : k + 1], lines[k : k + 1], readout_signal=told[k : k + 1], **how)[0]
        for k in range(B)
    ]
    assert relative(sum(single), whole) < 1e-12
    traces, total = None, 0.0
    for piece in (slice(0, 23), slice(23, 24), slice(24, T)):
        part = type(local)(*(value if value.shape[1] == 1 else value[:, piece] for value in local))
        gradient, traces = online(part, run.slope[:, piece], lines[:, piece], readout_signal=told[:, piece], eligibility=traces, **how)
        total = total + gradient
    assert relative(total, whole) < 1e-12


def run_slice(local, trials):
    return type(local)(*(value if value.shape[0] == 1 else value[trials] for value in local))


def test_traces_do_not_know_the_future():
    """T17, bit for bit."""
    net, (x, _) = network(), inputs()
    other = x.clone()
    other[:, 30:] = 1.0 - other[:, 30:]
    found = []
    for given in (x, other):
        run = simulate(net, given)
        lines, local = torch.cat([given, run.previous], dim=-1), run.local(net, "adaptation")
        traces = Eligibility.zeros(B, N, N_IN + N, 2, lines)
        seen = []
        for t in range(40):
            traces.input_step(local.at(t), run.slope[:, t], lines[:, t])
            seen.append(traces.filter(net.kappa, net.omega).clone())
        found.append(torch.stack(seen))
    assert torch.equal(found[0][:30], found[1][:30])
    assert not torch.equal(found[0][30:], found[1][30:])
