"""Training: the optimum of an outside solver, resume bit for bit, how a run ends, transforms, and recovery of a known network."""

import dataclasses
import io
import time

import numpy as np
import pytest
import torch
from scipy import optimize, special

from fitspike.errors import BackendError, InvalidInputError, RunFolderError, UnknownNameError
from fitspike.learning.bptt import BPTT
from fitspike.learning.trainer import TrainSettings, train
from fitspike.losses.likelihood import NegativeLogLikelihood
from fitspike.losses.noise_correlation import NoiseCorrelationLoss
from fitspike.losses.priors import L2
from fitspike.losses.summary_statistics import StatisticLoss
from fitspike.models.base import SolverContext
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.srm import SRM
from fitspike.params import ParamSpec, initial_params, to_tensors
from fitspike.recording.binned import SpikeChunk
from fitspike.recording.recording import Recording, Signal
from fitspike.rng import Stream
from fitspike.statistics.rates import PSTH

NLL = {"nll": (NegativeLogLikelihood(), 1.0)}


def random_binned(n_trials=12, n_bins=80, n_neurons=4, rate=0.15, seed=0, conditions=None):
    rng = np.random.default_rng(seed)
    counts = (rng.random((n_trials, n_bins, n_neurons)) < rate).astype(int)
    return Recording.from_counts(counts, dt_ms=1.0, conditions=conditions).bin()


class Log:
    """Collects reports and checkpoints; raises KeyboardInterrupt in the report of a given step."""

    def __init__(self, interrupt_at=None):
        self.rows, self.checkpoints, self.interrupt_at = [], {}, interrupt_at

    def report(self, step, metrics):
        self.rows.append(dict(metrics))
        if step == self.interrupt_at:
            raise KeyboardInterrupt

    def checkpoint(self, step, arrays):
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # what a file keeps is all there is
        self.checkpoints[step] = buffer

    def resume(self, step):
        self.checkpoints[step].seek(0)
        return dict(np.load(self.checkpoints[step], allow_pickle=False))


def run(model, binned, *, losses=NLL, transforms=(), log=None, resume=None, max_steps=40, deadline_s=None, **settings):
    specs = model.param_specs(binned.info())
    log = log or Log()
    init, backend = settings.pop("init", None), settings.pop("backend", "auto")
    context = SolverContext(
        init=initial_params(specs, Stream(0, "init"), init),
        stream=Stream(0, "fit"),
        report=log.report,
        checkpoint=log.checkpoint,
        resume=resume,
        max_steps=max_steps,
        deadline_s=deadline_s,
        backend=backend,
    )
    return train(model, specs, binned, losses, BPTT(), transforms, TrainSettings(**settings), context)


def test_training_reaches_the_optimum_of_an_outside_solver():
    """A network whose neurons see only their own last bin is one penalised logistic regression per neuron."""
    binned = random_binned(6, 60, 2, rate=0.3)
    model = SpikingNetwork(
        neuron=SRM(post_spike_tau_ms=()), basis="boxes", coupling_ms=1.0, self_coupling=True, connect=("*->*",), emission="bernoulli"
    )
    losses = NLL | {"l2": (L2(scale=1.5), 1.0)}
    params, _ = run(
        model, binned, losses=losses, max_steps=500, learning_rate=0.1, n_trials=6, precision="float64", patience=0, final_fraction=1e-4
    )
    spikes = binned.dense_numpy(dtype="float64")
    before = np.concatenate([np.zeros((6, 1, 2)), spikes[:, :-1]], axis=1).reshape(-1, 2)
    for neuron in range(2):
        sign = 2 * spikes[..., neuron].ravel() - 1

        def objective(x, sign=sign):
            return -special.log_expit(sign * (x[0] + before @ x[1:])).sum() + 0.75 * (x[1:] ** 2).sum()

        best = optimize.minimize(objective, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
        ours = np.concatenate([params["bias"][neuron : neuron + 1], params["coupling"][neuron, :, 0]])
        np.testing.assert_allclose(ours, best, atol=2e-4)


@pytest.mark.parametrize("optimiser", ["adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("n_hidden", [0, 2])
def test_a_resumed_run_ends_with_the_same_parameters_bit_for_bit(optimiser, n_hidden):
    model, binned = SpikingNetwork(n_hidden=n_hidden, delay_ms=2.0), random_binned()
    settings = {"optimiser": optimiser, "n_bins": 30, "n_trials": 5, "log_every": 7, "max_steps": 30, "validation_fraction": 0.25}
    log = Log()
    whole, report = run(model, binned, log=log, transforms=(Halve(), Noise()), **settings)
    assert sorted(log.checkpoints) == [7, 14, 21, 28, 30]
    for step in (7, 21):  # 21 lies inside a batch of trials, so that a carry is handed on
        resumed, again = run(model, binned, resume=log.resume(step), transforms=(Halve(), Noise()), **settings)
        assert again.status == report.status and again.n_steps == 30
        for name, value in whole.items():
            np.testing.assert_array_equal(resumed[name], value, err_msg=f"{name} after resuming at {step}")


def test_an_interrupted_run_says_so_and_goes_on_as_if_it_had_not_been():
    model, binned, log = SpikingNetwork(), random_binned(), Log(interrupt_at=20)
    whole, _ = run(model, binned)
    _, report = run(model, binned, log=log)
    assert report.status == "INTERRUPTED" and report.n_steps == 20
    resumed, _ = run(model, binned, resume=log.resume(20))
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)


def test_a_resumed_run_simulates_as_many_free_trials_as_before():
    """Batches of two recorded trials, of which no two halves with repeats can be made; twenty simulated ones."""
    model, log = SpikingNetwork(time_bumps=4), Log(interrupt_at=10)
    losses = NLL | {"noise_correlation": (NoiseCorrelationLoss(), 1.0)}
    settings = {"losses": losses, "n_trials": 2, "n_free_trials": 20, "n_bins": 40, "max_steps": 20}
    binned = random_binned(6, conditions=["a"] * 6)
    whole, _ = run(model, binned, **settings)
    run(model, binned, log=log, **settings)
    resumed, _ = run(model, binned, resume=log.resume(10), **settings)
    assert all(np.array_equal(resumed[name], whole[name]) for name in whole)


def test_a_checkpoint_of_another_fit_is_refused():
    log = Log()
    run(SpikingNetwork(), random_binned(), log=log, max_steps=10)
    with pytest.raises(RunFolderError, match="does not fit"):
        run(SpikingNetwork(n_hidden=1), random_binned(), resume=log.resume(10))


@dataclasses.dataclass(frozen=True)
class Explodes:
    """The likelihood, until a bias has moved by 0.05; then NaN."""

    start: tuple
    name = "explodes"
    needs = frozenset({"chunk"})

    def __call__(self, context):
        moved = (context.params["bias"].detach() - torch.tensor(self.start)).abs().max()
        value = NegativeLogLikelihood()(context)["nll"]
        return {"explodes": value * (float("nan") if moved > 0.05 else 1.0)}


def test_a_diverging_run_keeps_the_last_parameters_of_a_finite_loss():
    model, binned = SpikingNetwork(), random_binned()
    start = initial_params(model.param_specs(binned.info()), Stream(0, "init"))["bias"]
    losses = {"explodes": (Explodes(tuple(start)), 1.0)}
    params, report = run(model, binned, losses=losses, learning_rate=0.02, schedule="constant", n_trials=12)
    assert report.status == "DIVERGED" and "explodes" in report.message
    moved = np.abs(params["bias"] - start).max()
    assert 0.0 < moved <= 0.05
    # one more step would have gone beyond: Adam's first steps have the length of the learning rate
    assert report.n_steps == 3 and np.isclose(moved, 0.04, atol=0.01)


def test_limits_end_a_run():
    binned = random_binned()
    _, report = run(SpikingNetwork(), binned, deadline_s=time.monotonic() - 1)
    assert (report.status, report.n_steps) == ("TIME_LIMIT", 0)
    _, report = run(SpikingNetwork(), binned, max_steps=5)
    assert (report.status, report.n_steps) == ("STEP_LIMIT", 5)
    _, report = run(SpikingNetwork(), binned, max_steps=400, learning_rate=1e-9, patience=3, log_every=2, n_trials=12, n_bins=80)
    assert report.status == "PLATEAU" and report.n_steps < 20


class Halve:
    """Takes half of every proposed update."""

    name, citation = "halve", None

    def init(self, specs, raw, rng):
        return raw, {"n": torch.zeros(())}

    def apply(self, state, raw, update, step):
        return {name: raw[name] + 0.5 * value for name, value in update.items()}, {"n": state["n"] + 1}


class Noise:
    """Adds noise of its stream, the more the more often it was called: both must survive a resume."""

    name, citation = "noise", None

    def init(self, specs, raw, rng):
        return raw, [torch.zeros(())]

    def apply(self, state, raw, update, step):
        scale = 1e-3 * (state[0] + 1)
        noise = torch.as_tensor(step.rng.numpy().standard_normal(raw["bias"].shape), dtype=raw["bias"].dtype)
        return {name: raw[name] + value + (scale * noise if name == "bias" else 0) for name, value in update.items()}, [state[0] + 1]


def test_update_transforms_act_after_the_optimiser():
    """Halving a gradient would leave Adam's step as it is; halving the update halves it."""
    model, binned = SpikingNetwork(), random_binned()
    start = initial_params(model.param_specs(binned.info()), Stream(0, "init"))
    settings = {"max_steps": 1, "precision": "float64", "n_trials": 12}
    plain, _ = run(model, binned, **settings)
    halved, _ = run(model, binned, transforms=(Halve(),), **settings)
    quartered, _ = run(model, binned, transforms=(Halve(), Halve()), **settings)
    for part, factor in ((halved, 0.5), (quartered, 0.25)):
        np.testing.assert_allclose(part["bias"] - start["bias"], factor * (plain["bias"] - start["bias"]), rtol=1e-9)


def test_parameters_that_are_not_trainable_stay():
    model, binned = SpikingNetwork(), random_binned()
    start = initial_params(model.param_specs(binned.info()), Stream(0, "init"))
    params, _ = run(model, binned)
    np.testing.assert_array_equal(params["coupling_mask"], start["coupling_mask"])
    np.testing.assert_allclose(params["post_spike_tau_ms"], start["post_spike_tau_ms"], rtol=1e-6)
    assert np.abs(params["bias"] - start["bias"]).max() > 1e-3


def test_validation_keeps_the_parameters_of_the_lowest_held_out_loss():
    """Twelve bins of noise and a large learning rate: training data are overfitted, so the best parameters come early."""
    model, binned = SpikingNetwork(coupling_init=0.01), random_binned(8, 12, 6, rate=0.4)
    log = Log()
    params, _ = run(
        model, binned, log=log, max_steps=120, learning_rate=0.2, validation_fraction=0.5, log_every=1, patience=0, precision="float64"
    )
    losses = [row["validation_nll"] for row in log.rows]
    _, validation = binned.folds(2)[0]
    likelihood, _ = model.log_likelihood(to_tensors(params), next(validation.chunks(12, batch_trials=4)), None, Stream(0, "x"))
    np.testing.assert_allclose(-likelihood.sum().item() / (4 * 12 * 6), min(losses), rtol=1e-3)
    assert min(losses) < losses[-1] - 0.01


def test_validation_takes_whole_trials_where_trials_repeat():
    """Cut into blocks, parts of one stimulus would be compared with other parts of it."""
    seen = []

    class Psth(StatisticLoss):
        def record(self, binned):
            seen.append(binned)
            return super().record(binned)

    binned = random_binned(3, 200, conditions=["a"] * 3)
    losses = NLL | {"psth": (Psth(PSTH()), 1.0)}
    run(SpikingNetwork(time_bumps=4), binned, losses=losses, max_steps=2, n_free_trials=10, validation_fraction=0.2)
    assert seen[0].n_trials == 2 and list(seen[0].bins_per_trial) == [200, 200]
    with pytest.raises(InvalidInputError, match="with validation_fraction=0.2 set aside: .* the training data are one trial"):
        run(SpikingNetwork(time_bumps=4), binned.select_trials([0, 1]), losses=losses, validation_fraction=0.2)


def test_every_log_point_has_the_gradient_norm_of_each_term():
    _, report = run(SpikingNetwork(), random_binned(), losses=NLL | {"l2": (L2(), 1.0)}, max_steps=7, log_every=5)
    assert [row["step"] for row in report.history] == [5, 7]
    assert all(row["gradient_norm/nll"] > 0 and row["gradient_norm/l2"] > 0 for row in report.history)


def test_history_holds_plain_floats():
    log = Log()
    _, report = run(SpikingNetwork(), random_binned(), log=log, max_steps=25)
    assert [row["step"] for row in report.history] == [10, 20, 25] and len(log.rows) == 3
    assert all(type(value) is float for row in report.history for value in row.values())
    assert {"nll", "loss", "gradient_norm", "learning_rate", "wall_s", "epoch"} <= set(report.history[0])


def test_wrong_settings_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'adam'"):
        run(SpikingNetwork(), random_binned(), optimiser="adm")
    with pytest.raises(UnknownNameError, match="several times per step"):
        run(SpikingNetwork(), random_binned(), optimiser="lbfgs")
    with pytest.raises(UnknownNameError, match="no schedule"):
        TrainSettings(schedule="linear")
    with pytest.raises(InvalidInputError, match="precision"):
        TrainSettings(precision="float16")


@pytest.mark.slow
def test_couplings_of_a_simulated_network_are_recovered():
    """30 trials of 2 s of a known network of 12 neurons; correlation of true and fitted off-diagonal weights, oriented [post, pre]."""
    n_neurons, rng = 12, np.random.default_rng(0)
    model = SpikingNetwork(neuron=SRM(post_spike_tau_ms=(5.0,)), coupling_ms=24.0)
    truth_binned = random_binned(1, 10, n_neurons)
    specs = model.param_specs(truth_binned.info())
    weight = rng.normal(0, 8.0, (n_neurons, n_neurons, 1)) * (rng.random((n_neurons, n_neurons, 1)) < 0.4)
    truth = initial_params(specs, Stream(0, "init")) | {
        "coupling": weight,
        "bias": np.full(n_neurons, -3.5),
        "post_spike_weight": np.full((n_neurons, 1), -2.0),
    }
    uniforms = torch.as_tensor(Stream(0, "u").uniforms(30, range(2000), n_neurons))
    free = model.rollout(to_tensors(truth), SpikeChunk.empty(30, 2000, n_neurons, 1.0), uniforms=uniforms)
    binned = Recording.from_counts(free.spikes.numpy().astype(int), dt_ms=1.0).bin()
    params, _ = run(model, binned, max_steps=400, learning_rate=0.1, n_trials=15, n_bins=500)
    off = ~np.eye(n_neurons, dtype=bool)
    fitted, true = params["coupling"][..., 0], weight[..., 0]
    assert np.corrcoef(fitted[off], true[off])[0, 1] > 0.95
    assert np.corrcoef(fitted.T[off], true[off])[0, 1] < 0.5
    slope = (fitted[off] @ true[off]) / (true[off] @ true[off])
    assert 0.9 < slope < 1.1
    np.testing.assert_allclose(params["bias"], truth["bias"], atol=0.3)


def test_signals_of_any_unit_are_standardised_by_the_training_data():
    """The filter of a signal in thousands of its unit is found as that of a standardised one; without, Adam would not get there."""
    rng = np.random.default_rng(0)
    standard = rng.normal(size=(3000, 1))
    spikes = rng.random((1, 3000, 1)) < special.expit(-2.0 + 1.5 * standard)
    recording = Recording.from_counts(spikes.astype(int), dt_ms=1.0)
    recording = recording.attach(signals={"position": Signal(5e4 + 2e3 * standard, sampling_rate_hz=1000.0, start_ns=0)})
    model = SpikingNetwork(neuron=SRM(post_spike_tau_ms=()), coupling_ms=0.0)
    params, _ = run(model, recording.bin(), max_steps=300, learning_rate=0.05)
    np.testing.assert_allclose(params["signal_offset"], 5e4 + 2e3 * standard.mean(), rtol=1e-5)
    np.testing.assert_allclose(params["signal_scale"], 2e3 * standard.std(), rtol=1e-3)
    # three standard errors of a logistic regression on this many bins are about 0.25
    np.testing.assert_allclose(params["signal"].item(), 1.5 * standard.std(), atol=0.25)
    np.testing.assert_allclose(params["bias"].item(), -2.0 + 1.5 * standard.mean(), atol=0.25)


class Memoryless:
    """A neuron known by its step alone: a bias and the current."""

    name, current_unit, citation = "memoryless", "1", ()

    def param_specs(self, n_neurons):
        return {"bias": ParamSpec((n_neurons,), "1", init=-2.0, axes=("neuron",))}

    def init_state(self, params, n_trials):
        return ()

    def step(self, params, state, current, spikes, dt_ms):
        return (), params["bias"] + current


def test_explicit_backend_of_the_fit_reaches_the_rollout():
    """Compiled loops cannot run a neuron known by its step alone: a backend that was passed on refuses, one that was lost would train."""
    model = SpikingNetwork(neuron=Memoryless())
    run(model, random_binned(2, 20, 2), max_steps=1)
    with pytest.raises(BackendError, match="numba"):
        run(model, random_binned(2, 20, 2), max_steps=1, backend="numba")


def test_a_loss_of_senseless_size_has_diverged():
    """Steps far too long leave a loss that is a number still; going on would end in a step limit, as if more steps might help."""
    binned = random_binned(2, 40, 3)
    model = SpikingNetwork(emission="poisson")
    _, report = run(model, binned, max_steps=30, learning_rate=1e6, optimiser="sgd", schedule="constant", n_trials=2)
    assert report.status == "DIVERGED" and "passed 1e+15" in report.message
