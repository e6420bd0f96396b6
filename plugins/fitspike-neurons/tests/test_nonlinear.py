"""Adaptive exponential and Izhikevich neurons against scipy's integration with the reset as an event, and their firing patterns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from driving import drive, params_of
from fitspike_neurons.adex import AdEx
from fitspike_neurons.izhikevich import PATTERNS, Izhikevich
from scipy.integrate import solve_ivp

from fitspike.errors import InvalidInputError

DT_MS = 0.1
DURATION_MS = 200.0


def spike_times(slope, start, reset, peak, duration_ms=DURATION_MS, bin_ms=None):
    """Return spike times by scipy, the state reset whenever the voltage reaches the peak, or at the end of the bin in which it does."""

    def reaches_peak(t, y):
        return y[0] - peak

    reaches_peak.terminal, reaches_peak.direction = True, 1.0
    t, state, found = 0.0, np.asarray(start, dtype=float), []
    while t < duration_ms:
        solution = solve_ivp(slope, (t, duration_ms), state, events=reaches_peak, rtol=1e-7, atol=1e-7)
        assert solution.status in (0, 1), solution.message
        if solution.status == 0:
            break
        t, state = float(solution.t[-1]), solution.y[:, -1]
        if bin_ms is not None:
            stop = np.ceil(t / bin_ms) * bin_ms
            state[1:] = solve_ivp(lambda t, w: slope(t, [peak, w[0]])[1:], (t, stop), state[1:], rtol=1e-7, atol=1e-7).y[:, -1]
            t = stop
        found.append(t)
        state = np.asarray(reset(state), dtype=float)
    return np.array(found)


def izhikevich_times(pattern, current, bin_ms):
    p = PATTERNS[pattern]

    def slope(t, y):
        return [0.04 * y[0] ** 2 + 5 * y[0] + 140 - y[1] + current, p["a"] * (p["b"] * y[0] - y[1])]

    return spike_times(slope, (p["c_mv"], p["b"] * p["c_mv"]), lambda y: (p["c_mv"], y[1] + p["d"]), 30.0, bin_ms=bin_ms)


def adex_times(neuron, current, bin_ms):
    def slope(t, y):
        upstroke = neuron.conductance_ns * neuron.slope_mv * np.exp((y[0] - neuron.threshold_mv) / neuron.slope_mv)
        return [
            (-neuron.conductance_ns * (y[0] - neuron.rest_mv) + upstroke - y[1] + current) / neuron.capacitance_pf,
            (neuron.coupling_ns * (y[0] - neuron.rest_mv) - y[1]) / neuron.tau_w_ms,
        ]

    return spike_times(slope, (neuron.rest_mv, 0.0), lambda y: (neuron.reset_mv, y[1] + neuron.jump_pa), neuron.peak_mv, bin_ms=bin_ms)


def check_times(found, times_of):
    """Check spikes (times of the ends of their bins) against `times_of(bin_ms)`.

    With the reset at the end of the bin, as the model has it, the first ten spikes come in the same bins. (Later on one of them comes so
    near to a bin's edge that rounding decides, which shifts those after it.) With the reset at the spike itself there are as many, to
    one and 5 %: an interval is lengthened by a part of a bin.
    """
    on_grid, exact = times_of(DT_MS), times_of(None)
    n_same = min(10, len(on_grid))
    assert n_same >= 5
    np.testing.assert_allclose(found[:n_same], on_grid[:n_same], rtol=0, atol=1e-9)
    assert abs(len(found) - len(exact)) <= 1 + 0.05 * len(exact)


def test_izhikevich_patterns_fire_as_integrated():
    """All five kinds of cortical neuron at once, under the paper's constant current of 10."""
    current = np.full((round(DURATION_MS / DT_MS), len(PATTERNS)), 10.0)
    columns = {name: [p[name] for p in PATTERNS.values()] for name in ("a", "b", "c_mv", "d")}
    neuron = Izhikevich()
    spikes, _ = drive(neuron, current, params=params_of(neuron, len(PATTERNS), **columns), dt_ms=DT_MS)
    intervals = {}
    for i, pattern in enumerate(PATTERNS):
        found = (np.flatnonzero(spikes[:, i]) + 1) * DT_MS
        check_times(found, lambda bin_ms, pattern=pattern: izhikevich_times(pattern, 10.0, bin_ms))
        intervals[pattern] = np.diff(found)
    assert len(intervals["fast-spiking"]) > 3 * len(intervals["regular-spiking"])  # as the paper's names say
    assert intervals["chattering"].max() > 5 * intervals["chattering"].min()
    assert intervals["intrinsically-bursting"][0] < 0.3 * intervals["intrinsically-bursting"][-1]
    assert intervals["regular-spiking"][-1] > intervals["regular-spiking"][0]


def test_adex_patterns_fire_as_integrated():
    """The paper's regular spiking neuron, one that bursts by a high reset, one without adaptation."""
    base = AdEx(peak_mv=-20.0, n_substeps=4)
    kinds = [base, replace(base, reset_mv=-47.4, tau_w_ms=20.0), replace(base, jump_pa=0.0, coupling_ns=0.0)]
    amplitudes = np.array([1000.0, 800.0, 700.0])
    columns = {name: [getattr(kind, name) for kind in kinds] for name in ("reset_mv", "tau_w_ms", "jump_pa", "coupling_ns")}
    current = np.tile(amplitudes, (round(DURATION_MS / DT_MS), 1))
    spikes, _ = drive(base, current, params=params_of(base, 3, **columns), dt_ms=DT_MS)
    intervals = []
    for i, kind in enumerate(kinds):
        found = (np.flatnonzero(spikes[:, i]) + 1) * DT_MS
        check_times(found, lambda bin_ms, kind=kind, i=i: adex_times(kind, amplitudes[i], bin_ms))
        intervals.append(np.diff(found))
    assert (np.diff(intervals[0]) > 0).all()  # adaptation
    assert intervals[1].max() > 2 * intervals[1].min()  # bursts
    assert np.ptp(intervals[2]) <= DT_MS + 1e-9  # tonic


def test_defaults_are_the_published_neurons():
    """Brette and Gerstner 2005 (281 pF, 30 nS, -70.6, -50.4 and 2 mV, 144 ms, 4 nS, 80.5 pA), Izhikevich 2003 (0.02, 0.2, -65, 8)."""
    adex, izhikevich = AdEx(), Izhikevich()
    assert (adex.capacitance_pf, adex.conductance_ns, adex.rest_mv, adex.threshold_mv, adex.slope_mv) == (281.0, 30.0, -70.6, -50.4, 2.0)
    assert (adex.tau_w_ms, adex.coupling_ns, adex.jump_pa, adex.reset_mv) == (144.0, 4.0, 80.5, -70.6)
    assert (izhikevich.a, izhikevich.b, izhikevich.c_mv, izhikevich.d, izhikevich.peak_mv) == (0.02, 0.2, -65.0, 8.0, 30.0)
    published = {  # Izhikevich 2003, Figure 2
        "regular-spiking": (0.02, 0.2, -65.0, 8.0),
        "intrinsically-bursting": (0.02, 0.2, -55.0, 4.0),
        "chattering": (0.02, 0.2, -50.0, 2.0),
        "fast-spiking": (0.1, 0.2, -65.0, 2.0),
        "low-threshold-spiking": (0.02, 0.25, -65.0, 2.0),
    }
    assert {name: tuple(p[key] for key in ("a", "b", "c_mv", "d")) for name, p in PATTERNS.items()} == published


def test_adex_below_threshold_follows_the_integration():
    neuron = AdEx(softness_mv=1.0)
    current = np.random.default_rng(0).normal(200.0, 150.0, 60)
    _, found = drive(neuron, current[:, None], dt_ms=1.0)
    state, expected = np.array([neuron.rest_mv, 0.0]), []
    for one in current:

        def slope(t, y, one=one):
            upstroke = neuron.conductance_ns * neuron.slope_mv * np.exp((y[0] - neuron.threshold_mv) / neuron.slope_mv)
            return [
                (-neuron.conductance_ns * (y[0] - neuron.rest_mv) + upstroke - y[1] + one) / neuron.capacitance_pf,
                (neuron.coupling_ns * (y[0] - neuron.rest_mv) - y[1]) / neuron.tau_w_ms,
            ]

        state = solve_ivp(slope, (0, 1.0), state, rtol=1e-10, atol=1e-10).y[:, -1]
        expected.append(state[0])
    np.testing.assert_allclose(found[:, 0] + neuron.peak_mv, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("neuron", [AdEx(), Izhikevich()], ids=lambda one: one.name)
def test_voltage_of_a_neuron_that_is_not_reset_stays_at_the_ceiling(neuron):
    """Observed to be silent under a current that makes it spike: the likelihood must stay finite."""
    current = np.full((300, 1), 2000.0 if neuron.name == "adex" else 30.0)
    _, found = drive(neuron, current, observed=np.zeros((300, 1)))
    assert np.isfinite(found).all() and found.max() == pytest.approx(5.0) and found.min() < -5.0


@pytest.mark.parametrize("dt_ms", [1.0, 5.0, 10.0])
def test_strong_inhibition_silences_a_neuron_in_bins_of_any_width(dt_ms):
    """Far below rest Izhikevich's membrane has a time constant of 0.14 ms, where four steps in 5 ms made the neuron spike."""
    current = np.full((round(200 / dt_ms), 1), -300.0)
    spikes, found = drive(Izhikevich(softness_mv=1.0), current, dt_ms=dt_ms)
    p = PATTERNS["regular-spiking"]
    roots = np.roots([0.04, 5.0 - p["b"], 140.0 - 300.0])  # of dv/dt = 0 with u = b v
    assert not spikes.any() and found[-1, 0] + 30.0 == pytest.approx(roots.min(), abs=0.2)


@pytest.mark.parametrize("neuron", [AdEx(jump_pa=50.0, reset_mv=-60.0), Izhikevich(d=6.0, c_mv=-55.0)], ids=lambda one: one.name)
def test_reset_and_jump_of_a_spike_are_told_apart(neuron):
    """In a bin so short that nothing else happens: the reset moves the voltage alone, the rest of the spike the slow variable alone."""
    params, dt_ms = params_of(neuron), 1e-9
    zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    start = (torch.full((1, 1), -70.0).double(), torch.full((1, 1), 3.0).double())
    reset, jump = (neuron.reset_mv, neuron.jump_pa) if neuron.name == "adex" else (neuron.c_mv, neuron.d)
    (voltage, slow), _ = neuron.step_with_reset(params, start, zero, zero, one, dt_ms)
    assert (voltage.item(), slow.item()) == pytest.approx((reset, 3.0), abs=1e-5)
    (voltage, slow), _ = neuron.step_with_reset(params, start, zero, one, zero, dt_ms)
    assert (voltage.item(), slow.item()) == pytest.approx((-70.0, 3.0 + jump), abs=1e-5)


def test_settings_are_checked():
    with pytest.raises(InvalidInputError, match="must lie below peak_mv"):
        AdEx(reset_mv=10.0)
    with pytest.raises(InvalidInputError, match="must lie below peak_mv"):
        Izhikevich(c_mv=40.0)
    with pytest.raises(InvalidInputError, match="n_substeps=0"):
        Izhikevich(n_substeps=0)
    with pytest.raises(InvalidInputError, match="n_substeps=2.5 must be a whole number"):
        AdEx(n_substeps=2.5)
