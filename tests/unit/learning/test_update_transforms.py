"""What training offers to update transforms: where to begin, another parametrisation, the step, the optimiser's memory, a check before."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import fitspike
from fitspike.errors import InvalidInputError
from fitspike.learning.bptt import BPTT
from fitspike.learning.optimisers import OptimiserSlots, learning_rate_at
from fitspike.learning.trainer import TrainSettings, train
from fitspike.losses.likelihood import NegativeLogLikelihood
from fitspike.models.base import SolverContext
from fitspike.models.spiking_network import SpikingNetwork
from fitspike.params import initial_params, real
from fitspike.recording.recording import Recording
from fitspike.rng import Stream


def recording(n_neurons=4, seed=0):
    counts = (np.random.default_rng(seed).random((12, 80, n_neurons)) < 0.15).astype(int)
    return Recording.from_counts(counts, dt_ms=1.0)


def run(model, transforms, max_steps=5, **settings):
    binned = recording().bin()
    specs = model.param_specs(binned.info())
    context = SolverContext(init=initial_params(specs, Stream(0, "init")), stream=Stream(0, "fit"), max_steps=max_steps)
    losses = {"nll": (NegativeLogLikelihood(), 1.0)}
    settings = TrainSettings(precision="float64", **settings)
    return context.init, *train(model, specs, binned, losses, BPTT(), transforms, settings, context)


class Plain:
    """Takes the proposed update as it is."""

    name, citation = "plain", None

    def init(self, specs, raw, rng):
        return raw, ()

    def apply(self, state, raw, update, step):
        return {name: raw[name] + value for name, value in update.items()}, state


class BeginsAtZero(Plain):
    def init(self, specs, raw, rng):
        return {"coupling": torch.zeros_like(raw["coupling"])}, ()


def test_training_begins_with_the_parameters_that_a_transform_returns():
    start, params, _ = run(SpikingNetwork(), (BeginsAtZero(), Plain()), max_steps=1, optimiser="sgd", learning_rate=1e-9)
    assert np.abs(start["coupling"]).max() > 0.01
    assert 0 < np.abs(params["coupling"]).max() < 1e-6  # the first step left from there, and changed the model's own tensors
    np.testing.assert_allclose(params["bias"], start["bias"], atol=1e-6)


class SetsZero(Plain):
    """Takes signs over and puts every third weight to 0, which no softplus reaches."""

    def reparametrise(self, specs):
        return {**specs, "coupling": replace(specs["coupling"], constraint=real)}

    def init(self, specs, raw, rng):
        assert specs["coupling"].constraint.kind == "sign"  # the model's own
        return self._zeroed(raw), ()

    def apply(self, state, raw, update, step):
        changed, state = super().apply(state, raw, update, step)
        return self._zeroed({**raw, **changed}), state

    def _zeroed(self, raw):
        keep = torch.arange(raw["coupling"].numel()).reshape(raw["coupling"].shape) % 3 != 0
        return {**raw, "coupling": raw["coupling"] * keep}


def test_a_transform_may_take_a_constraint_over():
    model = SpikingNetwork(dale=(1, -1, 1, -1))
    start, params, _ = run(model, (SetsZero(),))
    assert (params["coupling"].flat[::3] == 0).all()
    own = run(model, ())[1]
    assert (own["coupling"] != 0).all()
    first = run(model, (SetsZero(),), max_steps=1, optimiser="sgd", learning_rate=1e-9)[1]
    others = np.arange(16) % 3 != 0
    np.testing.assert_allclose(first["coupling"].ravel()[others], start["coupling"].ravel()[others], atol=1e-6)  # constrained values stay


class Records(Plain):
    def __init__(self):
        self.steps, self.slots = [], []

    def apply(self, state, raw, update, step):
        self.steps.append((step.step, step.n_steps, step.learning_rate, step.rng.name))
        self.slots.append(step.slots.get("bias"))
        if step.step == 3:
            step.slots.set("bias", "exp_avg", torch.zeros(4, dtype=torch.float64))
        return super().apply(state, raw, update, step)


def test_a_step_tells_its_number_its_learning_rate_and_the_optimisers_memory():
    records = Records()
    run(SpikingNetwork(), (records,), max_steps=6, learning_rate=0.02)
    assert [step[:2] for step in records.steps] == [(k, 6) for k in range(6)]
    assert [step[2] for step in records.steps] == [learning_rate_at(k, 6, 0.02, "cosine", 0.05) for k in range(6)]
    assert len({step[3] for step in records.steps}) == 6
    assert set(records.slots[0]) == {"exp_avg", "exp_avg_sq"}  # Adam's step count is no memory of entries
    # Adam: m <- 0.9 m + 0.1 g and v <- 0.999 v + 0.001 g^2. After step 3 m was put to 0, so that m = 0.1 g after step 4
    gradient_squared = 1000 * (records.slots[4]["exp_avg_sq"] - 0.999 * records.slots[3]["exp_avg_sq"])
    np.testing.assert_allclose(records.slots[4]["exp_avg"] ** 2, 0.01 * gradient_squared, rtol=1e-9)
    gradient_squared = 1000 * (records.slots[3]["exp_avg_sq"] - 0.999 * records.slots[2]["exp_avg_sq"])
    assert ((records.slots[3]["exp_avg"] ** 2 / (0.01 * gradient_squared) - 1).abs() > 1e-3).all()


def test_slots_are_copies_and_empty_before_the_first_step():
    weight = torch.ones(3, requires_grad=True)
    optimiser = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    slots = OptimiserSlots(optimiser, {"w": weight})
    assert slots.get("w") == {}
    weight.grad = torch.ones(3)
    optimiser.step()
    slots.get("w")["momentum_buffer"].zero_()
    assert (slots.get("w")["momentum_buffer"] == 1).all()
    slots.set("w", "momentum_buffer", torch.tensor([1.0, 0.0, 2.0]))
    weight.grad = torch.zeros(3)
    before = weight.detach().clone()
    optimiser.step()
    np.testing.assert_allclose(weight.detach() - before, [-0.09, 0.0, -0.18], rtol=1e-5)


class Refuses(Plain):
    def __init__(self):
        self.plan = None

    def check(self, plan):
        self.plan = plan
        raise InvalidInputError("no such training. Choose another.")


def test_a_transform_is_asked_before_anything_is_computed(tmp_path):
    refuses = Refuses()
    with pytest.raises(InvalidInputError, match="no such training"):
        fitspike.fit(
            recording(),
            "spiking-network",
            transforms=(refuses,),
            optimiser={"name": "SGD"},
            out=tmp_path / "run",
            progress="off",
        )
    assert not (tmp_path / "run").exists()
    plan = refuses.plan
    assert (plan.optimiser, set(plan.losses)) == ("sgd", {"nll"})
    assert {"bias", "coupling", "coupling_mask"} <= set(plan.specs)
