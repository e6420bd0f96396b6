"""A model small enough to fit in milliseconds, with a solver that can be stopped anywhere and a setting to be selected."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from fitspike.citation import Citation
from fitspike.models.base import Rollout, SolverReport
from fitspike.params import ParamSpec
from fitspike.recording.recording import Recording


class Killed(BaseException):
    """Stands for kill -9: nothing in the package catches it, so nothing is written after it."""


@dataclass(frozen=True)
class SteadyRate:
    """Expected count exp(log_rate) in every bin. The solver halves the distance to the optimum, plus `shift`, in each step."""

    name: str = "steady-rate"
    citation: Citation = Citation("Example A 2000, Steady rates, J. Examples 1:1", title="Steady rates")
    emissions: tuple = ("poisson", "bernoulli")
    emission: str = "auto"
    shift: float | str = "auto"
    n_steps: int = 12
    diverge_at: int = -1

    def open_settings(self):
        return ("shift",) if self.shift == "auto" else ()

    def param_specs(self, data):
        return {"log_rate": ParamSpec((data.n_neurons,), "1", init=-1.0, axes=("neuron",), doc="log of the expected count")}

    def select(self, binned, context):
        rows = []
        for number, shift in enumerate((0.5, 0.0, -0.5)):
            context.report(number, {"shift": shift})
            rows.append({"label": f"shift {shift}", "score": -abs(shift), "error": 0.1, "penalty": None, "is_chosen": shift == 0.0})
        return replace(self, shift=0.0), {"candidates": rows}

    def solve(self, binned, context):
        assert self.shift != "auto", "a fit fixes open settings first"
        target = np.log(np.maximum(binned.mean_count(), 1e-3)) + self.shift
        state = {"log_rate": np.array(context.init["log_rate"]), "step": np.array(0)}
        if context.resume is not None:
            state = {name: np.array(value) for name, value in context.resume.items()}
        status = "CONVERGED"
        for step in range(int(state["step"]) + 1, self.n_steps + 1):
            state = {"log_rate": state["log_rate"] + (target - state["log_rate"]) / 2 * (1 + 0.1 * np.sin(step)), "step": np.array(step)}
            if step == self.diverge_at:
                return {"log_rate": state["log_rate"]}, SolverReport("DIVERGED", "it blew up", step)
            context.checkpoint(step, state)
            context.report(step, {"distance": float(np.abs(target - state["log_rate"]).max())})
            if context.max_steps is not None and step >= context.max_steps and step < self.n_steps:
                status = "STEP_LIMIT"
                break
        return {"log_rate": state["log_rate"]}, SolverReport(status, "halved", int(state["step"]), extras={"standard_error": np.ones(3)})

    def intensity(self, params, chunk, carry):
        return torch.exp(params["log_rate"]).expand(chunk.n_trials, chunk.n_bins, chunk.n_neurons), None

    def log_likelihood(self, params, chunk, carry, rng):
        expected, _ = self.intensity(params, chunk, carry)
        spikes = chunk.dense("float64")
        return ((spikes * torch.log(expected) - expected - torch.lgamma(spikes + 1)) * chunk.mask[:, :, None]).sum(1), None

    def rollout(self, params, context, *, uniforms, observed=None, observed_mask=None, carry=None):
        from fitspike.neurons.emissions import poisson_quantile

        expected, _ = self.intensity(params, context, None)
        spikes = poisson_quantile(expected, uniforms)
        if observed is not None:
            spikes = torch.where(observed_mask, observed.double(), spikes)
        return Rollout(spikes, torch.zeros(context.n_trials, context.n_neurons))


@pytest.fixture
def steady_rate():
    return SteadyRate


@pytest.fixture
def killed():
    return Killed


@pytest.fixture
def counts_recording():
    """Return 3 neurons, 3000 bins of 10 ms, expected counts 0.1, 0.2 and 0.4."""
    counts = np.random.default_rng(3).poisson([0.1, 0.2, 0.4], size=(3000, 3))
    return Recording.from_counts(counts, dt_ms=10.0, ids=["a", "b", "c"])
