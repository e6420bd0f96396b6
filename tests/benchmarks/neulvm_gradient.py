"""Value and gradient of a ten-second trial of three hidden populations: the compiled recursion against a plain torch loop.

    make bench ONLY=neulvm_gradient

Both compute the same log-probability, in float64, and the same gradients in activity, input and constants; the ratio is of processor times
in one thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fitspike.kernels import mesoscopic
from fitspike.kernels.mesoscopic import Constants, reference

sys.path.insert(0, str(Path(__file__).parents[1] / "acceptance"))
from _table import Bounds  # noqa: E402

N_BINS, N_HISTORY, DT_S, N_AGES = 2750, 250, 0.004, 30
N_COMPILED, N_LOOP = 30, 3


def problem() -> tuple[Constants, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return constants, activity, spikes of nine neurons, their populations and the input."""
    coupling = np.array([[9.984, 0, -19.968], [0, 9.984, -19.968], [9.984, 9.984, -19.968]])
    c = Constants([0.02] * 3, [14.4] * 3, [6 - np.log(10)] * 3, coupling, [0.003, 0.003, 0.006], [400, 400, 200], DT_S, n_ages=N_AGES)
    rng = np.random.default_rng(0)
    membership, drive = np.repeat(np.arange(3), 3), rng.normal(0, 5, (N_BINS, 3))
    given = np.broadcast_to(np.array([18.9, 6.0, 24.5]) * DT_S, (N_HISTORY, 3))
    run = mesoscopic.simulate(
        drive, c, rng.standard_normal((N_BINS, 3)), given=given, membership=membership, uniforms=rng.random((N_BINS, 9))
    )
    return c, run.fractions, run.spikes, membership, drive


def torch_loop(c: Constants, fractions: np.ndarray, spikes: np.ndarray, membership: np.ndarray, drive: np.ndarray) -> list[np.ndarray]:
    """Return value and gradients by automatic differentiation of the readable recursion."""
    leaves = [torch.tensor(x, requires_grad=True) for x in (fractions[None], drive[None], c.tau_s, c.rest, c.threshold, c.coupling)]
    population = reference.Population(leaves[2], leaves[3], leaves[4], leaves[5], torch.tensor(c.tau_syn_s), torch.tensor(c.n_neurons))
    grid = reference.Grid(c.dt_s, c.n_ages, c.t_ref_s, c.delay_bins)
    parts = reference.log_prob(
        leaves[0], torch.tensor(spikes)[None], torch.tensor(membership), leaves[1], population, grid, first_bin=N_HISTORY
    )
    total = (parts[0] + parts[1]).sum()
    total.backward()
    return [np.array(total.item()), *(leaf.grad.numpy() for leaf in leaves)]


def compiled(c: Constants, fractions: np.ndarray, spikes: np.ndarray, membership: np.ndarray, drive: np.ndarray) -> list[np.ndarray]:
    """Return value and gradients from the compiled recursion and its adjoint."""
    log_fractions, log_spikes, g = mesoscopic.log_prob(fractions, spikes, membership, drive, c, first_bin=N_HISTORY)
    assert g is not None
    return [np.array(log_fractions + log_spikes), g.fractions, g.drive, g.tau_s, g.rest, g.threshold, g.coupling]


def seconds(function: Callable[..., object], arguments: tuple, n: int) -> list[float]:
    """Return processor times of n calls, in order of size."""
    found = []
    for _ in range(n):
        begin = time.process_time()
        function(*arguments)
        found.append(time.process_time() - begin)
    return sorted(found)


def main() -> None:
    """Print the table."""
    bounds = Bounds("neulvm_gradient", kind="benchmark")
    torch.set_num_threads(1)
    arguments = problem()
    ours, theirs = compiled(*arguments), torch_loop(*arguments)
    worst = max(float(np.abs(a - b.reshape(a.shape)).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))
    bounds.check("value and all gradients equal the loop's to 1e-9 (relative to the largest entry)", f"{worst:.1e}", worst <= 1e-9)
    fast, slow = seconds(compiled, arguments, N_COMPILED), seconds(torch_loop, arguments, N_LOOP)
    ratio = float(np.median(slow) / np.median(fast))
    bounds.check("at least 100 times shorter than the torch loop (medians)", f"{ratio:.0f}", ratio >= 100)
    bounds.note(f"compiled {1e3 * np.median(fast):.1f} ms (from {1e3 * fast[0]:.1f} to {1e3 * fast[-1]:.1f}), loop {np.median(slow):.2f} s")
    bounds.note(f"{N_BINS} bins of {1e3 * DT_S:g} ms, 3 populations, {N_AGES} ages, 9 observed neurons, float64, one thread")
    bounds.finish()


if __name__ == "__main__":
    main()
