"""Readouts against scipy's filter and hand counts, their parameters in a fit, and what a rule may put in their place."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import signal, special

import fitspike
from fitspike.errors import InvalidInputError, PluginError
from fitspike.losses.base import LossContext
from fitspike.losses.likelihood import NegativeLogLikelihood
from fitspike.losses.rate_regulariser import RateRegulariser
from fitspike.losses.readout import Readout, leaky_readout
from fitspike.losses.total import all_specs, weighted_terms
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.neurons.lif import EscapeLIF
from fitspike.params import ParamSpec, initial_params, to_tensors
from fitspike.plotting.figures import available
from fitspike.plotting.report import number, render
from fitspike.plotting.run_files import RunFiles
from fitspike.recording.recording import Recording, Signal
from fitspike.recording.split import parse_split, split
from fitspike.results.result import FitResult
from fitspike.rng import Stream

N_TRIALS, N_BINS, N_IN, N_HIDDEN = 3, 40, 4, 5
NETWORK = SpikingNetwork(neuron=EscapeLIF(), n_hidden=N_HIDDEN, signals=(), coupling_ms=1.0, coupling_init=20.0)


@pytest.fixture
def task():
    rng = np.random.default_rng(0)
    counts = (rng.random((N_TRIALS, N_BINS, N_IN)) < 0.3).astype(int)
    filtered = signal.lfilter([0.2], [1, -0.8], counts[..., :2] - 0.3, axis=1)  # of the first two inputs, what a network can learn
    target = Signal(filtered.reshape(-1, 2), 1000.0)
    weight = Signal((rng.random((N_TRIALS * N_BINS, 1)) < 0.5).astype(float), 1000.0)
    return Recording.from_counts(counts, dt_ms=1.0, signals={"target": target, "when": weight})


def context_of(loss, task, model=NETWORK, **how):
    binned = task.bin()
    specs = all_specs(model, {loss.name: (loss, 1.0)}, binned.info())
    params = {name: value.requires_grad_() for name, value in to_tensors(initial_params(specs, Stream(0, "init"))).items()}
    return LossContext(model, params, binned.chunk(range(N_TRIALS), 0, N_BINS), binned.info(), Stream(0, "x"), **how)


def test_readout_is_scipys_filter_of_the_hidden_spikes(task):
    loss = Readout(tau_out_ms=7.0)
    context = context_of(loss, task)
    context.own(loss)["bias"].data += torch.tensor([0.3, -0.2], dtype=torch.float64)
    spikes = context.clamped.latents["hidden_spikes"].detach().numpy()
    assert 0.02 < spikes.mean() < 0.98
    kappa = np.exp(-1 / 7.0)
    filtered = signal.lfilter([1 - kappa], [1, -kappa], spikes, axis=1)
    expected = filtered @ context.own(loss)["weight"].detach().numpy().T + [0.3, -0.2]
    np.testing.assert_allclose(loss.outputs(context).detach().numpy(), expected, rtol=1e-12, atol=1e-14)
    unit = replace(loss, output_scaling="unit", bias=False).outputs(context)
    np.testing.assert_allclose(unit.detach().numpy(), (expected - [0.3, -0.2]) / (1 - kappa), rtol=1e-12, atol=1e-13)


def test_squared_error_is_the_weighted_mean_over_trials_and_bins(task):
    loss = Readout(target_weight="when")
    context = context_of(loss, task)
    value = loss(context)["readout"].item()
    error = (loss.outputs(context) - torch.as_tensor(context.chunk.signal_values["target"])).detach().numpy()
    target = context.chunk.signal_values["target"]
    asked = context.chunk.signal_values["when"][..., 0] > 0
    assert 0 < asked.sum() < asked.size
    np.testing.assert_allclose(value, 0.5 * (error[asked] ** 2).sum(-1).mean(), rtol=1e-12)
    around = target[asked] - target[asked].mean(0)
    np.testing.assert_allclose(context.metrics["readout_nmse"], (error[asked] ** 2).sum() / (around**2).sum(), rtol=1e-12)


def test_cross_entropy_and_decisions_equal_a_count_by_hand(task):
    """Two decisions in the first trial (class 0 in bins 3 to 5, class 1 in bins 6 to 8), none in the second, one in the third."""
    label = np.zeros((N_TRIALS, N_BINS, 2))
    label[0, 3:6, 0] = label[0, 6:9, 1] = label[2, :4, 1] = 1.0
    task = task.attach(signals={"target": Signal(label.reshape(-1, 2), 1000.0)})
    output = torch.zeros(N_TRIALS, N_BINS, 2, dtype=torch.float64)
    output[0, 3:6, 0] = torch.tensor([-1.0, -1.0, 5.0])  # mean 1: right, though two of three bins are wrong
    output[0, 6:9, 1] = torch.tensor([1.0, 1.0, -5.0])  # mean -1: wrong
    output[2, :4, 1] = 1.0  # right
    loss = Readout(error="cross_entropy", bias=False)
    context = context_of(loss, task, readout_by=lambda name, spikes, weight, decay, gain: output)
    value = loss(context)["readout"].item()
    log_prob = special.log_softmax(output.numpy(), axis=-1)
    np.testing.assert_allclose(value, -(label * log_prob).sum() / 10, rtol=1e-12)
    assert context.metrics["readout_error"] == pytest.approx(1 / 3)
    means = special.log_softmax([[1.0, 0.0], [0.0, -1.0], [0.0, 1.0]], axis=-1)  # of the three decisions
    value = replace(loss, classify="decision")(context)["readout"].item()
    np.testing.assert_allclose(value, -(means[0, 0] + means[1, 1] + means[2, 1]) / 3, rtol=1e-12)


def test_decision_is_the_weighted_mean_of_its_bins_and_none_is_no_loss(task):
    label = np.zeros((N_TRIALS, N_BINS, 2))
    label[1, 10:12, 1] = 1.0
    when = np.zeros((N_TRIALS, N_BINS, 1))
    when[1, 10], when[1, 11] = 3.0, 1.0
    signals = {"target": Signal(label.reshape(-1, 2), 1000.0), "when": Signal(when.reshape(-1, 1), 1000.0)}
    output = torch.zeros(N_TRIALS, N_BINS, 2, dtype=torch.float64, requires_grad=True)
    output.data[1, 10, 0], output.data[1, 11, 1] = 2.0, 4.0  # means 1.5 and 1
    loss = Readout(error="cross_entropy", classify="decision", target_weight="when", bias=False)
    context = context_of(loss, task.attach(signals=signals), readout_by=lambda *_: output)
    value = loss(context)["readout"]
    np.testing.assert_allclose(value.item(), -special.log_softmax([1.5, 1.0])[1], rtol=1e-12)
    (gradient,) = torch.autograd.grad(value, output)
    expected = np.outer([0.75, 0.25], special.softmax([1.5, 1.0]) - [0.0, 1.0])  # the same error in all bins, by their weight
    np.testing.assert_allclose(gradient[1, 10:12].numpy(), expected, rtol=1e-12)
    assert float(gradient.abs().sum()) == pytest.approx(np.abs(expected).sum())
    context.chunk.signal_values["target"][:] = 0.0
    nothing = loss(context)["readout"]
    assert nothing.item() == 0.0 and nothing.requires_grad


def test_rate_regulariser_is_the_sum_of_squared_rates_above_target(task):
    loss = RateRegulariser(rate_hz=20.0)
    context = context_of(loss, task)
    value = loss(context)["rate_regulariser"].item()
    rate = context.clamped.latents["hidden_spikes"].detach().numpy().mean((0, 1))
    np.testing.assert_allclose(value, ((rate - 0.02) ** 2).sum(), rtol=1e-12)
    assert context.metrics["hidden_rate_hz"] == pytest.approx(1000 * rate.mean())


@pytest.mark.parametrize("loss", [Readout(), RateRegulariser(rate_hz=20.0)], ids=lambda one: one.name)
def test_bins_past_the_end_of_a_trial_do_not_count(loss):
    """Trials of 40 and 25 bins, padded to 40: the mean is over 65 bins."""
    rng = np.random.default_rng(2)
    counts = [(rng.random((n_bins, N_IN)) < 0.3).astype(int) for n_bins in (40, 25)]
    target = Signal(rng.normal(size=(65, 2)), 1000.0)
    binned = Recording.from_counts(counts, dt_ms=1.0, signals={"target": target}).bin()
    specs = all_specs(NETWORK, {loss.name: (loss, 1.0)}, binned.info())
    params = to_tensors(initial_params(specs, Stream(0, "init")))
    context = LossContext(NETWORK, params, binned.chunk(range(2), 0, 40), binned.info(), Stream(0, "x"))
    value = loss(context)[loss.name].item()
    inside = np.arange(40) < np.array([[40], [25]])
    if loss.name == "readout":
        error = (loss.outputs(context) - torch.as_tensor(context.chunk.signal_values["target"])).numpy()
        expected = 0.5 * (error[inside] ** 2).sum(-1).mean()
    else:
        spikes = context.clamped.latents["hidden_spikes"].numpy()
        assert spikes[~inside].any(), "hidden neurons go on firing in the padding"
        expected = ((spikes[inside].mean(0) - 0.02) ** 2).sum()
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_initial_weights_shrink_with_the_root_of_the_number_of_neurons(task):
    """4000 weights: their standard deviation is known to 1.1 %."""
    specs = Readout(weight_init=2.0).param_specs(replace(NETWORK, n_hidden=2000), task.bin().info())
    weight = initial_params(specs, Stream(0, "init"))["weight"]
    assert weight.shape == (2, 2000) and weight.std() == pytest.approx(2 / np.sqrt(2000), rel=0.056)


def test_rule_can_replace_the_readouts_backward_product(task):
    """Outputs with the readout's weights and a gradient to the spikes through others: feedback alignment."""
    feedback = torch.as_tensor(np.random.default_rng(1).normal(size=(2, N_HIDDEN)))

    def aligned(name, spikes, weight, decay, gain):
        through, exact = leaky_readout(name, spikes, feedback, decay, gain), leaky_readout(name, spikes.detach(), weight, decay, gain)
        return exact + through - through.detach()

    loss = Readout()
    by_feedback, with_feedback = context_of(loss, task, readout_by=aligned), context_of(loss, task)
    gradients = []
    for context in (by_feedback, with_feedback):
        spikes = context.clamped.latents["hidden_spikes"]
        if context is with_feedback:  # the same with the feedback as weights, around the outputs of the true weights
            error = loss.outputs(by_feedback).detach() - torch.as_tensor(context.chunk.signal_values["target"])
            output = leaky_readout("readout", spikes, feedback, spikes.new_full((1,), loss.decay(1.0)), loss.gain(1.0))
            value = (output * error).sum(-1).mean()
        else:
            value = loss(context)["readout"]
        gradients.append(torch.autograd.grad(value, context.params["coupling"], retain_graph=True)[0])
    assert float(gradients[0].abs().max()) > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-14)


def test_likelihood_and_readout_share_one_clamped_run(task):
    losses = {"nll": (NegativeLogLikelihood(), 1.0), "readout": (Readout(), 2.0)}
    context = context_of(losses["readout"][0], task)
    terms, metrics = weighted_terms(losses, context)
    alone, carry = context.model.log_likelihood(context.params, context.chunk, None, Stream(0, "x"))
    np.testing.assert_allclose(terms["nll"].item(), -alone.sum().item() / (N_TRIALS * N_BINS * N_IN), rtol=1e-12)
    assert metrics["readout_nmse"] > 0 and metrics["loss"] == pytest.approx(sum(term.item() for term in terms.values()))
    assert torch.equal(context.new_carry.units.spikes, carry.units.spikes)


def fit(task, out=None, loss=None, **options):
    quiet = {"progress": "off", "threads": 1, "report": False, "simulation": {"max_seconds": 0.1}, "split": "none"}
    how = quiet | {"stop": {"max_steps": 60, "log_every": 5}, "optimiser": {"learning_rate": 0.05, "precision": "float64"}} | options
    return fitspike.fit(task, NETWORK, loss=loss or {"readout": 1.0, "rate_regulariser": 0.1}, out=out, **how)


def test_fit_trains_and_stores_the_readouts_parameters(task, tmp_path):
    result = fit(task, tmp_path / "run")
    assert result.params["readout/weight"].shape == (2, N_HIDDEN) and result.params["readout/bias"].shape == (2,)
    first, last = result.history[0], result.history[-1]
    assert last["readout_nmse"] < 0.8 * first["readout_nmse"] and "hidden_rate_hz" in last
    loaded = FitResult.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.params["readout/weight"], result.params["readout/weight"])
    assert loaded.specs["readout/weight"].axes == ("output", "neuron")


def test_fit_with_a_readout_resumes_bit_for_bit(task, tmp_path):
    whole = fit(task, tmp_path / "whole")
    with pytest.raises(KeyError):
        fit(task, tmp_path / "run", stop={"max_steps": 60, "log_every": 5, "checkpoint_s": 0}, callbacks=[fail_at(20)])
    resumed = fit(task, tmp_path / "run", stop={"max_steps": 60, "log_every": 5, "checkpoint_s": 0}, resume=True)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(resumed.params[name], value, err_msg=name)


def fail_at(wanted):
    def callback(step, metrics):
        if step == wanted:
            raise KeyError("stands for a crash")

    return callback


def test_deterministic_network_is_fitted_and_not_scored_by_likelihood(task):
    model = replace(NETWORK, emission="threshold", pseudo_derivative="triangle", dampening=0.3)
    quiet = {"progress": "off", "threads": 1, "report": False, "simulation": {"max_seconds": 0}, "split": "trial:every=3"}
    result = fitspike.fit(task, model, loss={"readout": 1.0}, stop={"max_steps": 3}, **quiet)
    assert result.scores == {} and any("no likelihood" in note for note in result.notes)
    with pytest.raises(InvalidInputError, match="deterministic"):
        fitspike.fit(task, model, loss="nll", stop={"max_steps": 3}, **quiet)


def test_inputs_of_a_task_are_neither_simulated_nor_told_to_fire_less(task):
    """Running freely they would be silent, and spikes closer than the refractory time say nothing about neurons that are not modelled."""
    task = task.attach(neuron_columns={"population": np.array(["input"] * N_IN)})
    network = SpikingNetwork(neuron=EscapeLIF(refractory_ms=3.0), n_hidden=N_HIDDEN, signals=(), coupling_ms=1.0)
    task_network = replace(network, emission="threshold", pseudo_derivative="triangle", dampening=0.3, connect=("input->hidden",))
    how = {"progress": "off", "threads": 1, "report": False, "split": "none", "stop": {"max_steps": 2}, "loss": {"readout": 1.0}}
    found = fitspike.fit(task, task_network, **how)
    assert set(found.simulation) == {"targets"} and not any("refractory" in note for note in found.notes)
    assert not any(name.startswith("simulated/") for name in found.statistics)
    noisy = fitspike.fit(task, network, **how)
    assert "rate_r2" in noisy.simulation and any("refractory" in note for note in noisy.notes)


def test_fit_shows_held_out_outputs_beside_their_targets(task, tmp_path):
    result = fit(task, tmp_path / "run", split="trial:every=3", loss={"readout": {"weight": 1.0, "target_weight": "when"}})
    found = result.simulation["targets"]["readout"]
    held_out = split(task, parse_split("trial:every=3"), dt_ms=1.0).test.bin()
    assert found["n_trials"] == held_out.n_trials == 1 and result.statistics["recorded/is_held_out"]
    output, target, weight = (result.statistics[f"targets/readout/{part}"] for part in ("output", "target", "weight"))
    chunk = held_out.chunk(range(1), 0, N_BINS)
    np.testing.assert_allclose(target, chunk.signal_values["target"], rtol=1e-6)
    np.testing.assert_array_equal(weight, chunk.signal_values["when"][..., 0])
    error = np.sum(weight[..., None] * (output - target) ** 2, axis=(0, 1))
    mean = np.average(target.reshape(-1, 2), axis=0, weights=weight.ravel())
    variance = np.sum(weight[..., None] * (target - mean) ** 2, axis=(0, 1))
    assert found["readout_nmse"] == pytest.approx(error.sum() / variance.sum(), rel=1e-4)
    assert found["readout"] == pytest.approx(0.5 * error.sum() / weight.sum(), rel=1e-4)
    drawing = available(RunFiles.read(tmp_path / "run"))["targets-readout"]
    assert "held-out data" in drawing.caption
    report = render(RunFiles.read(tmp_path / "run"))
    row = f'<tr><th scope="row">readout: squared error / variance</th><td class="n">{number(found["readout_nmse"])}</td></tr>'
    assert row in report and '<h2 id="targets">' in report and 'href="#targets"' in report
    lines = drawing.figure().axes[0].get_lines()
    np.testing.assert_allclose(lines[1].get_ydata(), output[0, :, 0])
    np.testing.assert_allclose(lines[0].get_ydata()[weight[0] > 0], target[0, weight[0] > 0, 0])


def test_targets_are_shown_within_trials_and_after_their_warm_up():
    rng = np.random.default_rng(0)
    how = {"progress": "off", "threads": 1, "report": False, "stop": {"max_steps": 1}, "loss": {"readout": 1.0}}
    lengths = [40, 25, 10]
    target = {"target": Signal(rng.normal(size=(75, 2)), 1000.0)}
    uneven = Recording.from_counts([rng.integers(0, 2, (n_bins, N_IN)) for n_bins in lengths], dt_ms=1.0, signals=target)
    output = fitspike.fit(uneven, NETWORK, split="none", **how).statistics["targets/readout/output"]
    np.testing.assert_array_equal(np.isfinite(output[..., 0]).sum(1), lengths)
    one = Recording.from_counts(rng.integers(0, 2, (75, N_IN)), dt_ms=1.0, signals=target)
    found = fitspike.fit(one, NETWORK, split="time:0.2,warmup=0.03", **how).statistics  # bins 60 to 74 are judged, from bin 30 on they run
    assert found["targets/readout/output"].shape == (1, 15, 2) and np.isfinite(found["targets/readout/output"]).all()
    np.testing.assert_array_equal(found["targets/readout/time_ms"], np.arange(30, 45) + 0.5)


def test_trials_in_which_nothing_is_asked_get_no_perfect_loss(task):
    side = np.zeros((N_TRIALS, N_BINS, 2))
    side[:-1, 20:, 1] = 1.0
    task = task.attach(signals={"target": Signal(side.reshape(-1, 2), 1000.0)})
    loss = {"readout": {"weight": 1.0, "error": "cross_entropy"}}
    how = {"progress": "off", "threads": 1, "report": False, "stop": {"max_steps": 1}}
    found = fitspike.fit(task, NETWORK, loss=loss, split="trial:every=3,offset=2", **how)
    assert found.simulation["targets"] == {"readout": {"n_trials": 1}}


class ReadoutOfFreeRuns(Readout):
    """Shows the spikes that its network fires running freely."""

    needs = frozenset({"chunk", "rollout"})

    def traces(self, context):
        return super().traces(context)._replace(output=context.rollout.spikes[..., :2])


def test_traces_may_be_of_a_free_run(task):
    how = {"progress": "off", "threads": 1, "report": False, "split": "none", "stop": {"max_steps": 1}}
    shown = fitspike.fit(task, NETWORK, loss={"readout": ReadoutOfFreeRuns()}, **how).statistics["targets/readout/output"]
    assert shown.shape == (N_TRIALS, N_BINS, 2) and set(np.unique(shown)) == {0.0, 1.0}


def test_figure_of_classes_shades_the_right_one_where_it_is_asked_for(task, tmp_path):
    side = np.zeros((N_TRIALS, N_BINS, 2))
    side[0, 20:, 1] = side[1, 20:, 0] = 1.0  # nothing is asked in the last trial
    task = task.attach(signals={"target": Signal(side.reshape(-1, 2), 1000.0)})
    result = fit(task, tmp_path / "run", loss={"readout": {"weight": 1.0, "error": "cross_entropy"}})
    output, weight = result.statistics["targets/readout/output"], result.statistics["targets/readout/weight"]
    np.testing.assert_allclose(output.sum(-1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(weight, side.sum(-1))
    drawing = available(RunFiles.read(tmp_path / "run"))["targets-readout"]
    assert "training data" in drawing.caption
    axes = drawing.figure().axes
    shaded = [[bool(len(area.get_paths()[0].vertices)) if area.get_paths() else False for area in one.collections] for one in axes]
    assert shaded == [[False, True], [True, False], [False, False]]
    wrong = [output[trial, 20:, k].sum() < output[trial, 20:, 1 - k].sum() for trial, k in ((0, 1), (1, 0))]
    assert result.simulation["targets"]["readout"]["readout_error"] == np.mean(wrong)


def test_refusals_say_what_to_do(task):
    cases = [
        (replace(NETWORK, n_hidden=0), task, Readout(), "has none. Use"),
        (replace(NETWORK, signals="all"), task, Readout(), "Set its `signals`"),
        (NETWORK, task, Readout(target="targets"), "did you mean 'target'"),
        (NETWORK, task, Readout(target_weight="then"), "did you mean 'when'"),
    ]
    for model, data, loss, text in cases:
        with pytest.raises(InvalidInputError, match=text):
            fitspike.fit(data, model, loss={"readout": (loss, 1.0)}, split="none", progress="off")
    with pytest.raises(InvalidInputError, match="Set n_bins of .batch. to at least 40"):
        fit(task, batch={"n_bins": 20})
    for wrong in (
        {"error": "square"},
        {"classify": "symbol"},
        {"classify": "decision"},
        {"tau_out_ms": 0.0},
        {"output_scaling": "one"},
        {"weight_init": -1.0},
    ):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            Readout(**wrong)


def test_loss_may_not_bring_a_parameter_twice_or_with_a_slash(task):
    class Slash(Readout):
        def param_specs(self, model, data):
            return {"a/b": ParamSpec((1,), "1")}

    with pytest.raises(PluginError, match="without a slash"):
        all_specs(NETWORK, {"readout": (Slash(), 1.0)}, task.bin().info())


CLASSES = np.eye(2)[np.arange(N_TRIALS * N_BINS) // 7 % 2]


@pytest.mark.parametrize(
    ("loss", "target", "weight", "text"),
    [
        (Readout(error="cross_entropy"), CLASSES[:, :1], None, "target 'target' has one channel"),
        (Readout(error="cross_entropy"), CLASSES - 0.5, None, "lies between -0.5 and 0.5, with sums up to 0"),
        (Readout(error="cross_entropy"), CLASSES + 0.5, None, "with sums up to 2"),
        (Readout(error="cross_entropy", classify="decision"), 0.5 * CLASSES, None, "has values between 0 and 1. Use 'bin'"),
        (Readout(error="cross_entropy"), 0 * CLASSES, None, "lies between 0 and 0"),
        (Readout(target_weight="when"), CLASSES, CLASSES, "target_weight='when' has 2 channels; expected one"),
        (Readout(target_weight="when"), CLASSES, -CLASSES[:, :1], "lies between -1 and -0; expected weights"),
        (Readout(target_weight="when"), CLASSES, 0 * CLASSES[:, :1], "some of them positive"),
    ],
)
def test_targets_and_weights_that_cannot_be_learned_are_refused(task, loss, target, weight, text):
    signals = {"target": Signal(target, 1000.0)} | ({} if weight is None else {"when": Signal(weight, 1000.0)})
    with pytest.raises(InvalidInputError, match=text):
        loss.check(task.attach(signals=signals).bin(), NETWORK)


@pytest.mark.parametrize("error", ["squared", "cross_entropy"])
def test_a_batch_without_a_measure_of_success_is_no_divergence(task, error):
    """Targets are constant, or nothing is asked, in the first trial alone: its steps are taken, the others' log the measure."""
    target = CLASSES.copy()
    target[:N_BINS] = 0.0
    signals = {"target": Signal(target, 1000.0)}
    how = {"stop": {"max_steps": 6, "log_every": 1}, "batch": {"n_trials": 1}, "split": "none", "progress": "off"}
    result = fitspike.fit(task.attach(signals=signals), NETWORK, loss={"readout": {"weight": 1.0, "error": error}}, **how)
    name = "readout_nmse" if error == "squared" else "readout_error"
    rows = [row for row in result.history if "readout" in row]
    assert len(rows) == 6 and 0 < sum(name in row for row in rows) < 6
