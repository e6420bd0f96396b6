"""Times the same network in snnTorch and norse: inputs, recurrent weights and their gradients; run by the peers' interpreter."""

from __future__ import annotations

import os
from collections.abc import Callable

import norse.torch
import numpy as np
import snntorch
import torch
from _rollout_problem import DECAY, N_INPUTS, N_NEURONS, Problem, seconds
from _workers import answer, given

TARGET_HZ = 10.0


def snntorch_network(problem: Problem) -> tuple[Callable[[torch.Tensor], torch.Tensor], list[torch.Tensor]]:
    """Return a function of the inputs (n_trials, n_bins, n_inputs) that gives the spikes, by RLeaky, and its weights."""
    layer = snntorch.RLeaky(DECAY, linear_features=N_NEURONS)
    w_in = problem.w_in.detach().clone().requires_grad_()
    with torch.no_grad():
        layer.recurrent.weight.copy_(problem.w_rec)

    def run(inputs: torch.Tensor) -> torch.Tensor:
        spikes, voltage, found = torch.zeros(problem.n_trials, N_NEURONS), torch.zeros(problem.n_trials, N_NEURONS), []
        for current in (inputs @ w_in.T).unbind(1):
            spikes, voltage = layer(current, spikes, voltage)
            found.append(spikes)
        return torch.stack(found, dim=1)

    return run, [w_in, layer.recurrent.weight]


def norse_network(problem: Problem) -> tuple[Callable[[torch.Tensor], torch.Tensor], list[torch.Tensor]]:
    """Return the same by LIFRecurrent, which keeps a synaptic current besides the voltage and runs time first."""
    layer = norse.torch.LIFRecurrent(N_INPUTS, N_NEURONS)
    with torch.no_grad():
        layer.input_weights.copy_(problem.w_in)
        layer.recurrent_weights.copy_(problem.w_rec)
    return lambda inputs: layer(inputs.transpose(0, 1))[0].transpose(0, 1), [layer.input_weights, layer.recurrent_weights]


def gain_for_rate(run: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor) -> float:
    """Return the factor on the inputs at which the network fires at about `TARGET_HZ`, by bisection of its logarithm."""
    low, high = np.log(0.01), np.log(100.0)
    with torch.no_grad():
        for _ in range(9):
            middle = (low + high) / 2
            low, high = (low, middle) if float(run(inputs * np.exp(middle)).mean()) * 1e3 > TARGET_HZ else (middle, high)
    return float(np.exp((low + high) / 2))


def main() -> None:
    """Answer with seconds, one per run, and rates."""
    settings = given()
    problem = Problem(int(settings["n_trials"]))
    figures: dict[str, object] = {}
    for name, network in (("snntorch", snntorch_network), ("norse", norse_network)):
        run, weights = network(problem)
        gain = float(settings.get(f"{name}_gain", 0.0)) or gain_for_rate(run, problem.inputs)
        inputs, times = problem.inputs * gain, []
        for _ in range(1 + int(settings["n_runs"])):
            took, spikes = seconds(lambda run=run, inputs=inputs: run(inputs), problem.to_spikes)
            times.append(took)
            assert all(w.grad is not None and bool(w.grad.abs().sum() > 0) for w in weights)
            for w in weights:
                w.grad = None
        figures |= {f"{name}_s": np.array(times[1:]), f"{name}_gain": gain, f"{name}_hz": float(spikes.mean()) * 1e3}
    answer(**figures)


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    main()
