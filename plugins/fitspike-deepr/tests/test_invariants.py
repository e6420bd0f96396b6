"""What DEEP R keeps to at every step, and the distributions that its noise leads to without data (science/03, T12 to T14)."""

import io
import math

import numpy as np
import pytest
import torch
from fitspike_deepr.deep_r import DeepR, _shared
from fitspike_deepr.soft_deep_r import SoftDeepR

from fitspike.plugin import InvalidInputError, OptimiserSlots, ParamSpec, Stream, UpdateStep, check_update_transform, sign

AXES = ("post", "pre")


class Driver:
    """Plain torch around an update transform: matrices, an optimiser, gradients given from outside."""

    def __init__(self, transform, shapes, *, optimiser=torch.optim.SGD, specs=None, n_steps=100, seed=0, **options):
        self.transform, self.n_steps, self.seed = transform, n_steps, seed
        self.own = specs or {name: ParamSpec(shape, "1", axes=AXES) for name, shape in shapes.items()}
        generator = torch.Generator().manual_seed(seed)
        raw = {name: 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
        raw, self.state = transform.init(self.own, raw, Stream(seed, "init"))
        self.raw = {name: value.clone().requires_grad_() for name, value in raw.items()}
        self.optimiser = optimiser(list(self.raw.values()), **options)
        self.rate = options["lr"]

    def step(self, number, gradients=None):
        before = {name: value.detach().clone() for name, value in self.raw.items()}
        for name, value in self.raw.items():
            value.grad = torch.zeros_like(value) if gradients is None else gradients[name]
        self.optimiser.step()
        update = {name: value.detach() - before[name] for name, value in self.raw.items()}
        slots = OptimiserSlots(self.optimiser, self.raw)
        how = UpdateStep(number, self.n_steps, self.rate, {}, Stream(self.seed, f"step/{number}"), slots)
        changed, self.state = self.transform.apply(self.state, before, update, how)
        with torch.no_grad():
            for name, value in changed.items():
                self.raw[name].copy_(value)

    def active(self, name="w"):
        wiring = self.state[name]
        return getattr(wiring, "wiring", wiring).active

    def sign(self, name="w"):
        return self.state[name].sign


@pytest.mark.parametrize("transform", [DeepR, SoftDeepR, DeepR(density=0.4, scope="global", excitatory=0.7, temperature=1e-3)])
def test_conforms(transform):
    check_update_transform(transform)


def test_theta_without_data_is_exponential_with_mean_temperature_over_l1_and_every_connection_is_visited():
    """T12, a quarter of its size; all of it is in tests/acceptance. The relaxation time is temperature / (eta l1^2) = 500 steps."""
    driver = Driver(DeepR(n_active=375, l1=1.0, temperature=0.1), {"w": (30, 50)}, lr=2e-4, n_steps=6000)
    seen = driver.active().clone()
    total, above_mean, n = 0.0, 0.0, 0
    for number in range(6000):
        driver.step(number)
        seen |= driver.active()
        if number >= 2000 and number % 20 == 0:
            theta = driver.raw["w"].detach()[driver.active()].abs()
            total, above_mean, n = total + theta.mean().item(), above_mean + (theta > 0.1).double().mean().item(), n + 1
    assert seen.all()
    assert total / n == pytest.approx(0.1, rel=0.1)
    assert above_mean / n == pytest.approx(math.exp(-1), rel=0.1)  # of an exponential distribution, and of no other of that mean


@pytest.mark.parametrize("p", [0.3, 0.1])
def test_soft_deep_r_without_data_keeps_the_active_part_and_the_mean_of_its_prior(p):
    """T13."""
    transform = SoftDeepR(density=p, l1=1.0, temperature=0.1)
    assert transform.lowest_theta("w") == pytest.approx({0.3: -0.2333, 0.1: -0.9}[p], abs=1e-4)
    driver = Driver(transform, {"w": (30, 50)}, lr=2e-4)
    part, mean, n = 0.0, 0.0, 0
    for number in range(5000):
        driver.step(number)
        if number >= 1000 and number % 20 == 0:
            active = driver.active()
            part, n = part + active.double().mean().item(), n + 1
            mean += driver.raw["w"].detach()[active].abs().mean().item()
    assert part / n == pytest.approx(p, rel=0.05)
    assert mean / n == pytest.approx(0.1, rel=0.05)


OPTIMISERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.05}),
    "sgd with momentum": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
}


@pytest.mark.parametrize("slots", ["neutral", "reset", "keep"])
@pytest.mark.parametrize("signs", [{"signs": "resample"}, {"signs": "fixed"}, {"excitatory": 0.75}], ids=["resample", "fixed", "dale"])
@pytest.mark.parametrize("scope", ["per_matrix", "global"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_numbers_zeros_and_signs_are_exact_after_every_step(optimiser, scope, signs, slots):
    """T14, on a quadratic whose minimum is dense: the pull out of dormancy never ceases."""
    kind, options = OPTIMISERS[optimiser]
    transform = DeepR(n_active={"w": 40, "v": 15}, scope=scope, l1=0.02, temperature=1e-4, slots=slots, **signs)
    driver = Driver(transform, {"w": (20, 30), "v": (10, 20)}, optimiser=kind, **options)
    generator = torch.Generator().manual_seed(1)
    target = {name: torch.randn(value.shape, generator=generator, dtype=torch.float64) for name, value in driver.raw.items()}
    begun = {name: driver.sign(name).clone() for name in target}
    n_rewired, numbers = 0, set()
    for number in range(120):
        was = {name: driver.active(name) for name in target}
        noise = {name: torch.randn(value.shape, generator=generator, dtype=torch.float64) for name, value in target.items()}
        driver.step(number, {name: driver.raw[name].detach() - target[name] + noise[name] for name in target})
        numbers.add(tuple(int(driver.active(name).sum()) for name in ("w", "v")))
        for name in target:
            weight, active, one = driver.raw[name].detach(), driver.active(name), driver.sign(name)
            assert (weight[~active] == 0).all()
            assert (weight * one >= 0).all() and set(one.unique().tolist()) <= {-1.0, 1.0}
            n_rewired += int((active & ~was[name]).sum())
            if signs != {"signs": "resample"}:
                assert torch.equal(one, begun[name])
            if "excitatory" in signs:
                assert (one == one[:1]).all()
    assert n_rewired > 50
    if scope == "per_matrix":
        assert numbers == {(40, 15)}
    else:
        assert {sum(pair) for pair in numbers} == {55} and len(numbers) > 1
    if signs == {"signs": "resample"}:
        assert any(not torch.equal(driver.sign(name), begun[name]) for name in target)


def test_full_matrices_leave_nothing_to_rewire_to():
    driver = Driver(DeepR(density=1.0, scope="global", l1=0.1), {"w": (3, 4), "v": (2, 2)}, lr=0.1)
    for number in range(30):
        driver.step(number)
        assert driver.active("w").all() and driver.active("v").all()


def test_one_step_is_the_published_one():
    """theta <- theta - eta sign dE/dw - eta l1 where active, by hand; what stays keeps its sign, and what comes is 0."""
    driver = Driver(DeepR(n_active=10, l1=0.5), {"w": (4, 5)}, lr=0.1)
    active, one = driver.active(), driver.sign().clone()
    theta = torch.linspace(1.0, 3.0, 20, dtype=torch.float64).reshape(4, 5)
    gradient = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first = tuple(active.nonzero()[0])
    gradient[first] = 100.0 * one[first]
    with torch.no_grad():
        driver.raw["w"].copy_(torch.where(active, one * theta, 0.0))
    driver.step(0, {"w": gradient})
    expected = theta - 0.1 * one * gradient - 0.1 * 0.5
    kept = active & (expected >= 0)
    assert int(kept.sum()) == 9 and int(driver.active().sum()) == 10
    torch.testing.assert_close(driver.raw["w"].detach(), torch.where(kept, one * expected, 0.0), rtol=0.0, atol=1e-14)
    assert torch.equal(driver.sign()[kept], one[kept])


def test_a_connection_at_zero_stays_until_it_falls_below():
    driver = Driver(DeepR(n_active=6), {"w": (4, 5)}, lr=0.1)
    begun = driver.active()
    with torch.no_grad():
        driver.raw["w"].zero_()
    driver.step(0)
    assert torch.equal(driver.active(), begun)
    driver.step(1, {"w": driver.sign().clone()})  # pushes every theta below 0
    assert int(driver.active().sum()) == 6 and not torch.equal(driver.active(), begun)


def test_what_is_missing_in_all_matrices_goes_to_them_in_proportion_to_what_they_began_with():
    """Of 1000 connections three in four: 750 with a standard deviation of 13.7, so that 60 are missed once in 80000 seeds."""
    wide = {"a": 10_000, "b": 10_000}
    assert _shared(1000, {"a": 30, "b": 10}, wide, Stream(0, "x"))["a"] == pytest.approx(750, abs=60)
    assert _shared(12, {"a": 1, "b": 99}, {"a": 10, "b": 2}, Stream(0, "x")) == {"a": 10, "b": 2}


def test_momentum_does_not_wake_a_dormant_connection():
    driver = Driver(DeepR(n_active=2), {"w": (2, 3)}, optimiser=torch.optim.Adam, lr=0.01)
    dormant = ~driver.active()
    driver.step(0, {"w": torch.where(dormant, 1e3, -1e-3 * driver.sign())})  # active weights grow, so that nothing is rewired
    assert torch.equal(driver.active(), ~dormant) and (driver.raw["w"][dormant] == 0).all()


def step_of_a_fresh_connection(slots):
    """Return by how much Adam moves a connection right after it became active, relative to its learning rate, and its slots."""
    driver = Driver(DeepR(n_active=10, slots=slots), {"w": (4, 5)}, optimiser=torch.optim.Adam, lr=1e-3)
    for number in range(200):
        driver.step(number, {"w": -driver.sign().clone()})  # pushes every active connection up
    first = driver.active().nonzero()[0]
    with torch.no_grad():
        driver.raw["w"][tuple(first)] = driver.sign()[tuple(first)] * 1e-9
    gradient = -driver.sign().clone()
    gradient[tuple(first)] *= -1e4  # and one of them below zero
    before = driver.active()
    driver.step(200, {"w": gradient})
    fresh = driver.active() & (~before | (torch.arange(20).reshape(4, 5) == first[0] * 5 + first[1]))
    assert fresh.sum() == 1
    memory = OptimiserSlots(driver.optimiser, driver.raw).get("w")
    return {key: value[fresh].item() for key, value in memory.items()}, memory["exp_avg_sq"][driver.active() & ~fresh].mean().item()


def test_slots_of_a_fresh_connection():
    neutral, others = step_of_a_fresh_connection("neutral")
    assert neutral["exp_avg"] == 0 and neutral["exp_avg_sq"] == pytest.approx(others)
    assert step_of_a_fresh_connection("reset")[0] == {"exp_avg": 0, "exp_avg_sq": 0}
    assert step_of_a_fresh_connection("keep")[0]["exp_avg"] != 0


def test_masks_survive_a_file():
    """What a checkpoint keeps, the tensors of the state, is all there is: the run goes on bit for bit."""
    transform = DeepR(density=0.2, l1=0.1, temperature=1e-2)
    whole = Driver(transform, {"w": (12, 9)}, lr=0.05)
    for number in range(40):
        whole.step(number)
        if number == 19:
            kept = io.BytesIO()
            wiring = whole.state["w"]
            fields = ("active", "possible", "sign", "may_flip", "n_begun")
            np.savez(kept, weight=whole.raw["w"].detach(), **{name: getattr(wiring, name) for name in fields})
    again = Driver(transform, {"w": (12, 9)}, lr=0.05)
    kept.seek(0)
    arrays = np.load(kept, allow_pickle=False)
    assert arrays["active"].dtype == bool
    again.state = {"w": type(again.state["w"])(*(torch.as_tensor(arrays[name]) for name in fields))}
    with torch.no_grad():
        again.raw["w"].copy_(torch.as_tensor(arrays["weight"]))
    for number in range(20, 40):
        again.step(number)
    assert torch.equal(again.raw["w"], whole.raw["w"]) and torch.equal(again.active(), whole.active())


def test_only_possible_connections_are_made_and_the_mask_shows_which_there_are():
    specs = {"w": ParamSpec((6, 6, 2), "1", axes=(*AXES, "basis")), "w_mask": ParamSpec((6, 6), "1", trainable=False, axes=AXES)}
    transform = DeepR(density=0.5, l1=1.0, temperature=0.1)
    possible = 1.0 - torch.eye(6, dtype=torch.float64)
    raw, state = transform.init(specs, {"w": torch.randn(6, 6, 2, dtype=torch.float64), "w_mask": possible}, Stream(0, "init"))
    slots = OptimiserSlots(torch.optim.SGD([raw["w"]], lr=0.1), {"w": raw["w"]})
    visited = torch.zeros(6, 6, 2, dtype=torch.bool)
    for number in range(200):
        how = UpdateStep(number, 200, 0.02, {}, Stream(0, f"{number}"), slots)
        raw, state = transform.apply(state, raw, {"w": torch.zeros_like(raw["w"])}, how)
        active = state["w"].active
        assert active.sum() == 30 and not active[torch.eye(6, dtype=torch.bool)].any()
        assert torch.equal(raw["w_mask"] != 0, active.any(-1))
        visited |= active
    assert visited.sum() == 60


def test_signs_of_the_model_are_taken_over_and_zeros_allowed():
    signs = np.array([1, -1, 0, 1])[None, :]
    specs = {"w": ParamSpec((5, 4), "1", init=0.5, constraint=sign(signs), axes=AXES)}
    transform = DeepR(n_active=8, l1=0.3, temperature=0.05)
    assert transform.reparametrise(specs)["w"].constraint.kind == "real"
    driver = Driver(transform, {"w": (5, 4)}, specs=specs, lr=0.1)
    free = set()
    for number in range(100):
        driver.step(number)
        assert (driver.sign()[:, [0, 3]] == 1).all() and (driver.sign()[:, 1] == -1).all()
        free.add(tuple(driver.sign()[:, 2].tolist()))
        assert driver.active().sum() == 8
    assert len(free) > 1


WRONG = {
    "density": ({"density": 0.0}, "outside"),
    "signs": ({"signs": "some"}, "unknown signs 'some'"),
    "scope": ({"scope": "all"}, "unknown scope"),
    "slots": ({"slots": "new"}, "unknown slots"),
    "l1": ({"l1": -1.0}, "not negative"),
    "l1 is no number": ({"l1": math.nan}, "l1=nan.*must be finite"),
    "endless temperature": ({"temperature": math.inf}, "temperature=inf must be finite"),
    "density is no number": ({"density": math.nan}, "outside"),
    "density as text": ({"density": {"w": "0.1"}}, "outside"),
    "no connection": ({"n_active": 0}, "n_active=0 must be a whole number, at least 1"),
    "fewer than none": ({"n_active": {"w": -3}}, "at least 1"),
    "half a connection": ({"n_active": 2.5}, "n_active=2.5 must be a whole number"),
    "parameters as text": ({"parameters": "w"}, r"list of names, parameters=\['w'\]"),
    "signs twice": ({"signs": "fixed", "excitatory": 0.5}, "excitatory says nothing"),
    "excitatory": ({"excitatory": 2.0}, "outside"),
}


@pytest.mark.parametrize(("settings", "told"), WRONG.values(), ids=WRONG)
def test_wrong_settings_are_refused(settings, told):
    with pytest.raises(InvalidInputError, match=told):
        DeepR(**settings)


def test_soft_deep_r_without_noise_is_refused():
    with pytest.raises(InvalidInputError, match="no connection would come back"):
        SoftDeepR(temperature=0.0)


REFUSED = {
    "too many": (DeepR(n_active=13), {}, "13 active connections of w, which has 12 possible ones"),
    "no such matrix": (DeepR(parameters=("u",)), {}, "u cannot be rewired.*Trainable parameters: w"),
    "no matrix": (DeepR(), {"axes": ("neuron", "filter")}, "no trainable parameter has the axes post and pre"),
    "dale of an unsigned matrix": (DeepR(signs="dale"), {}, "has no signs"),
    "other signs of a signed one": (DeepR(signs="fixed"), {"constraint": sign([1, 1, -1, 1])}, "the model gives w signs"),
    "no number for a matrix": (DeepR(density={}), {}, "neither n_active nor density"),
    "density of no matrix": (DeepR(density={"w": 0.5, "v": 0.1}), {}, "density names v, and the matrices to rewire are w"),
    "number of no matrix": (DeepR(n_active={"W": 5}), {}, "n_active names W"),
    "signs of a vector": (DeepR(parameters=("w",), excitatory=0.5), {"shape": (4,), "axes": ("neuron",)}, "has no axis of them"),
}


@pytest.mark.parametrize(("transform", "spec", "told"), REFUSED.values(), ids=REFUSED)
def test_matrices_that_do_not_fit_are_refused(transform, spec, told):
    specs = {"w": ParamSpec(**{"shape": (3, 4), "unit": "1", "axes": AXES, **spec})}
    with pytest.raises(InvalidInputError, match=told):
        transform.init(specs, {"w": torch.ones(specs["w"].shape)}, Stream(0, "x"))


def numbers(transform, **shapes):
    specs = {name: ParamSpec(shape, "1", axes=AXES) for name, shape in shapes.items()}
    _, state = transform.init(specs, {name: torch.ones(shape) for name, shape in shapes.items()}, Stream(0, "x"))
    return {name: int(wiring.active.sum()) for name, wiring in state.items()}


def test_one_number_is_the_sum_over_all_matrices_however_small_one_of_them_is():
    assert numbers(DeepR(n_active=30), a=(10, 10), b=(1, 1)) == {"a": 29, "b": 1}
    assert numbers(DeepR(n_active=101), a=(10, 10), b=(1, 1)) == {"a": 100, "b": 1}
    assert numbers(DeepR(n_active=60), a=(10, 10), b=(10, 20)) == {"a": 20, "b": 40}
    for n in range(3, 13):
        assert sum(numbers(DeepR(n_active=n), a=(2, 3), b=(2, 2), c=(1, 2)).values()) == n
    with pytest.raises(InvalidInputError, match="n_active=1 for 2 matrices"):
        numbers(DeepR(n_active=1), a=(10, 10), b=(1, 1))


def test_a_matrix_without_possible_connections_is_refused():
    specs = {"w": ParamSpec((1, 1), "1", axes=AXES), "w_mask": ParamSpec((1, 1), "1", trainable=False, axes=AXES)}
    with pytest.raises(InvalidInputError, match="w has no possible connection"):
        DeepR().init(specs, {"w": torch.ones(1, 1), "w_mask": torch.zeros(1, 1)}, Stream(0, "x"))
