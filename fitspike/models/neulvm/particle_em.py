"""Particle EM: the E-step samples population activity by a particle filter, the M-step maximises the joint density of the samples.

Replaces the published hard EM, whose E-step drives the activity towards a noise-free path and biases the couplings by 3 to 5 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fitspike.models.neulvm.latents import Problem, draw_many, maximise_joint
from fitspike.rng import Stream


@dataclass(frozen=True)
class EMSettings:
    """n_paths: activities sampled in an E-step, each by a filter of its own."""

    n_iterations: int = 6
    n_particles: int = 200
    n_paths: int = 2
    m_step_iterations: int = 15
    threads: int = 1


def particle_em(
    problem: Problem,
    vector: np.ndarray,
    settings: EMSettings,
    stream: Stream,
    *,
    done: np.ndarray | None = None,
    after_step: Callable[[np.ndarray, float], bool] = lambda iterates, log_likelihood: True,
) -> np.ndarray:
    """Return the iterates (n_done + 1, n_free), the start first.

    done (n_done, n_free) are the iterates of an interrupted fit: with the same stream the result is that of the uninterrupted one, since
    each iteration draws from its own stream. `after_step(iterates, log_likelihood)` is called after every iteration and may end the fit
    by returning False.
    """
    iterates = [vector] if done is None else list(done)
    for step in range(len(iterates), settings.n_iterations + 1):
        value, paths = draw_many(
            problem,
            problem.free.constants(iterates[-1], problem.base),
            stream.child(f"iteration-{step}"),
            n_paths=settings.n_paths,
            n_particles=settings.n_particles,
            threads=settings.threads,
        )
        iterates.append(maximise_joint(iterates[-1], problem, paths, max_iterations=settings.m_step_iterations)[0])
        if not after_step(np.array(iterates), value):
            break
    return np.array(iterates)
