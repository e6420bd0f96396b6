"""Fits with sparsity penalties or sign bounds: each direction minimises a quadratic model of the likelihood plus the exact penalty."""

from __future__ import annotations

import numpy as np

from fitspike.kernels.composite_descent import composite_minimum
from fitspike.models.glm_descent import State
from fitspike.models.glm_metric import Gram, make_gram
from fitspike.models.glm_problem import Problem


class Proximal:
    """Proximal Newton steps (Lee, Sun, Saunders 2014, SIAM J. Optim. 24:1420).

    The quadratic model has the exact Hessian (`is_exact`) or the target's metric. The decrease that it expects is 0 exactly where the
    optimality (KKT) conditions hold, so convergence means the same as without penalties.
    """

    def __init__(self, problem: Problem, targets: np.ndarray, *, is_exact: bool) -> None:
        layout, model = problem.layout, problem.layout.model
        self.problem, self.targets, self.is_exact = problem, targets, is_exact
        self.free = layout.free[targets]
        self.gram: Gram | None = None if is_exact else make_gram(problem, targets)
        self._hessian: dict[int, np.ndarray] = {}
        self.backend = problem.backend
        n, n_weights = self.free.shape
        self.sparsity = np.zeros((n, n_weights))
        self.group_size = np.ones(n_weights, dtype=np.int64)
        if model.penalty != "l2" and "coupling" in layout.terms:
            columns = layout.terms["coupling"].columns
            strength = np.broadcast_to(np.asarray(model.sparsity_coupling, dtype=np.float64), layout.n_neurons)[targets]
            if model.penalty == "group-l1":
                self.group_size[columns] = layout.coupling.n_basis
                strength = strength * np.sqrt(layout.coupling.n_basis)
            self.sparsity[:, columns] = strength[:, None]
        bounds = layout.bounds()
        infinite = np.full((n, n_weights), np.inf)
        self.low, self.high = (-infinite, infinite) if bounds is None else (bounds[0][targets], bounds[1][targets])

    def prepare(self, state: State) -> None:
        """Do nothing; see `Direction`."""

    def inside(self, rows: np.ndarray) -> np.ndarray:
        """Return rows moved into the bounds."""
        return np.clip(rows, self.low, self.high)

    def penalty(self, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return the sparsity penalty of the targets numbered `at`, (len(at),)."""
        size = int(self.group_size.max())
        if size == 1:
            return (self.sparsity[at] * np.abs(rows)).sum(axis=1)
        columns = self.problem.layout.terms["coupling"].columns
        norms = np.linalg.norm(rows[:, columns].reshape(len(rows), -1, size), axis=2)
        return (self.sparsity[at][:, columns][:, ::size] * norms).sum(axis=1)

    def evaluate(self, rows: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the objective with its penalty and the gradient without; see `Direction`."""
        if self.is_exact:
            objective, gradient, hessian = self.problem.newton_parts(rows, self.targets[at])
            self._hessian.update({int(number): h for number, h in zip(at, hessian, strict=True)})
        else:
            objective, gradient = self.problem.evaluate(rows, self.targets[at])
        return objective + self.penalty(rows, at), gradient * self.free[at]

    def direction(self, state: State, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return directions, slopes and expected decreases; see `Direction`."""
        rows, gradient = state["rows"][at], state["gradient"][at]
        direction = np.zeros(rows.shape)
        curvature = np.zeros(len(at))
        for i, number in enumerate(at):
            keep = np.flatnonzero(self.free[number])
            if self.is_exact:
                matrix, place, scale, diagonal = self._hessian[int(number)], keep, 1.0, np.zeros(len(keep))
            else:
                matrix, place, scale = self.gram.matrix, self.gram.place[number, keep], float(self.gram.n_spikes[number])
                diagonal = self.problem.ridge[self.targets[number], keep]
            new = composite_minimum(
                matrix,
                place,
                scale,
                diagonal,
                gradient[i, keep],
                rows[i, keep],
                self.sparsity[number, keep],
                self.group_size[keep],
                self.low[number, keep],
                self.high[number, keep],
                tolerance=1e-3 * self.problem.layout.model.tolerance * max(float(self.problem.n_spikes[self.targets[number]]), 1.0),
                backend=self.backend,
            )
            step = new - rows[i, keep]
            direction[i, keep] = step
            curvature[i] = scale * step @ matrix[np.ix_(place, place)] @ step + diagonal @ step**2
        slope = np.einsum("np,np->n", gradient, direction) + self.penalty(rows + direction, at) - self.penalty(rows, at)
        return direction, slope, np.maximum(-(slope + 0.5 * curvature), 0.0)
