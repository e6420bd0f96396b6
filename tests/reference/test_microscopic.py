"""Networks simulated neuron by neuron: the compiled kernel against the readable one, renewal theory, and its own pieces."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad

from fitspike.errors import InvalidInputError
from fitspike.kernels.microscopic import PopulationConstants, simulate_microscopic, start_microscopic
from fitspike.rng import Stream

COUPLED = PopulationConstants(
    tau_s=[0.02, 0.018, 0.015],
    rest=[14.4, 13.0, 12.0],
    threshold=[3.7, 3.6, 3.5],
    coupling=[[9.9, 1.0, -19.0], [0.5, 9.0, -18.0], [9.0, 8.0, -17.0]],
    tau_syn_s=[0.003, 0.004, 0.006],
    n_neurons=[40, 70, 90],
    dt_s=0.0005,
    t_ref_s=0.004,
    delay_bins=3,
)


def uncoupled(rest, n_neurons=2000, dt_s=0.0002):
    return PopulationConstants([0.02], [rest], [6 - np.log(10)], [[0.0]], [0.003], [n_neurons], dt_s, 0.004)


def renewal(rest, tau=0.02, t_ref=0.004):
    """Return rate, Hz, and coefficient of variation of the intervals, by integrating the survival probability."""
    threshold = 6 - np.log(10)

    def survival(t):
        return np.exp(-quad(lambda s: np.exp(rest * -np.expm1(-s / tau) - threshold), 0, t)[0])

    first = quad(survival, 0, 0.1, limit=200)[0] + quad(survival, 0.1, 1.5, limit=200)[0]
    second = 2 * (quad(lambda t: t * survival(t), 0, 0.1, limit=200)[0] + quad(lambda t: t * survival(t), 0.1, 1.5, limit=200)[0])
    return 1 / (t_ref + first), np.sqrt(second - first**2) / (t_ref + first)


def run(constants, n_steps, *, backend="auto", state=None, generator=None, drive=None, recorded=()):
    generator = Stream(3, "micro").numpy() if generator is None else generator
    drive = np.zeros((1, len(constants.tau_s))) if drive is None else drive
    return simulate_microscopic(
        drive, constants, generator, recorded=np.asarray(recorded, dtype=int), n_steps=n_steps, state=state, backend=backend
    )


@pytest.mark.parametrize(("rest", "rate_hz"), [(6.0, 6.734), (8.0, 17.036), (9.5, 24.092)])
def test_uncoupled_neurons_fire_at_one_over_their_mean_interval(rest, rate_hz):
    expected_hz, cv = renewal(rest)
    assert expected_hz == pytest.approx(rate_hz, rel=5e-4)
    c = uncoupled(rest)
    generator = Stream(0, f"rate/{rest}").numpy()
    begin = start_microscopic(c, generator, np.array([rate_hz]))
    done = run(c, 50_000, generator=generator, state=begin)  # 10 s
    # Counts of renewal processes have variance cv^2 n. Four standard errors: a false alarm in 16,000 runs.
    n = 2000 * 10 * expected_hz
    assert done.counts.sum() == pytest.approx(n, abs=4 * cv * np.sqrt(n))


def test_start_at_given_rates_is_stationary_from_the_first_step():
    c = uncoupled(8.0, n_neurons=200_000)
    generator = Stream(1, "start").numpy()
    counts = run(c, 200, generator=generator, state=start_microscopic(c, generator, np.array([17.036]))).counts[:, 0]
    rates = counts.reshape(10, 20).sum(axis=1) / (200_000 * 0.004)  # 4 ms each; sd of each: sqrt(17 / 800) = 0.146 Hz
    np.testing.assert_allclose(rates, 17.036, atol=4 * 0.146)


def test_rates_do_not_depend_on_the_step():
    expected_hz, cv = renewal(8.0)
    for dt_s in (0.0001, 0.0005, 0.001):
        c = uncoupled(8.0, dt_s=dt_s)
        generator = Stream(2, f"dt/{dt_s}").numpy()
        done = run(c, round(10 / dt_s), generator=generator, state=start_microscopic(c, generator, np.array([17.0])))
        n = 2000 * 10 * expected_hz
        # Hazards are taken at the end of a step, half a step early; spikes are seen there, half a step late: no error of first order.
        assert done.counts.sum() == pytest.approx(n, abs=4 * cv * np.sqrt(n))


def test_compiled_and_readable_kernel_give_the_same_spikes():
    drive = Stream(5, "drive").numpy().normal(0, 60, (200, 3))
    recorded = np.arange(0, 200, 3)
    results = [run(COUPLED, 2000, backend=backend, drive=drive, recorded=recorded) for backend in ("numba", "reference")]
    compiled, readable = results
    assert readable.counts.sum() > 1500
    for name in ("counts", "spike_step", "spike_neuron"):
        np.testing.assert_array_equal(getattr(compiled, name), getattr(readable, name))
    for name, value in vars(readable.state).items():
        np.testing.assert_allclose(getattr(compiled.state, name), value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_pieces_give_the_spikes_of_the_whole(backend):
    whole = run(COUPLED, 1000, backend=backend, recorded=[1, 50, 150])
    generator = Stream(3, "micro").numpy()
    state, counts, steps, done = None, [], [], 0
    for n_steps in (1, 2, 7, 390, 600):
        before = None if state is None else state.copied()
        piece = run(COUPLED, n_steps, backend=backend, generator=generator, state=state, recorded=[1, 50, 150])
        if before is not None:
            np.testing.assert_array_equal(before.potential, state.potential)  # a state that was given is not written to
        counts.append(piece.counts)
        steps.append(piece.spike_step + done)
        state, done = piece.state, done + n_steps
    np.testing.assert_array_equal(np.concatenate(counts), whole.counts)
    np.testing.assert_array_equal(np.concatenate(steps), whole.spike_step)


def test_a_neuron_is_silent_for_exactly_its_refractory_steps():
    # Hazard so high that every neuron fires in the first step it may: one spike each 1 + 8 steps.
    c = replace(uncoupled(60.0, n_neurons=10, dt_s=0.0005), threshold=[-15.0])
    done = run(c, 900, recorded=np.arange(10))
    for neuron in range(10):
        np.testing.assert_array_equal(np.diff(done.spike_step[done.spike_neuron == neuron]), 9)
    assert done.counts.sum() == 10 * 100
    busy = run(replace(COUPLED, coupling=np.zeros((3, 3)), rest=[20.0] * 3), 4000, recorded=np.arange(200))
    shortest = min(np.diff(busy.spike_step[busy.spike_neuron == i]).min() for i in range(200))
    assert shortest > 8


def test_a_spike_acts_through_its_synapse_after_the_delay():
    # One neuron that fires at once drives silent ones: their potential follows the double exponential of synapse and membrane.
    c = PopulationConstants([0.02] * 2, [0.0] * 2, [5.0] * 2, [[0, 0], [2.0, 0]], [0.003] * 2, [1, 4], 0.0002, 0.004, delay_bins=5)
    start = start_microscopic(c, Stream(0, "x").numpy())
    start.remaining[:] = [0.0, *[1e9] * 4]
    n_steps = 400
    done = run(c, n_steps, state=start)
    assert done.counts[0].tolist() == [1, 0] and done.counts[:, 1].sum() == 0
    # The jump of 1 / dt Hz for one step is a charge of coupling / size = 2, spread over the synapse's 3 ms.
    t = (n_steps - 6) * 0.0002
    exact = 2.0 * 0.02 / (0.02 - 0.003) * (np.exp(-t / 0.02) - np.exp(-t / 0.003))
    np.testing.assert_allclose(done.state.potential[1:], exact, rtol=0.05)  # one step of 0.2 ms shifts the response by up to 4 %


def test_bad_calls_are_refused():
    with pytest.raises(InvalidInputError, match="no whole number of steps"):
        run(replace(COUPLED, t_ref_s=0.0042), 10)
    with pytest.raises(InvalidInputError, match=r"no multiple of the 3 rows(.|\n)*neurons 0 to 199"):
        run(COUPLED, 10, drive=np.zeros((3, 3)), recorded=[200])
    with pytest.raises(InvalidInputError, match="a column for each population"):
        run(COUPLED, 10, drive=np.zeros((10, 2)))
    with pytest.raises(InvalidInputError, match="for each of 3 populations"):
        start_microscopic(COUPLED, Stream(0, "x").numpy(), np.array([1.0, -1.0, 2.0]))
