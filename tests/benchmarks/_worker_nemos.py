"""Fits the coupled GLM of `coupled_glm_nemos.py` with nemos; run by the peers' interpreter."""

from __future__ import annotations

import time
import warnings

import jax
import nemos
import numpy as np
from _workers import answer, given

# In single precision, jax's default, which suffices for the objective.
TOLERANCE = 1e-3  # the loosest power of ten with which it reaches the optimum to 1e-6; its default is 1e-4

compile_s: list[float] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: compile_s.append(seconds) if event.startswith("/jax/core/compile/") else None
)

data = given()
n_bins, n_neurons = int(data["n_bins"]), int(data["n_neurons"])
counts = np.zeros((n_bins, n_neurons), dtype=np.float32)
np.add.at(counts, (data["bin"], data["neuron"]), 1.0)
basis = data["basis"].T.astype(np.float32)  # (n_lags, n_basis)

began = time.perf_counter()
# Silence before the recording, so that its first bins have features too; nemos leaves out the bins in which the filters do not fit.
padded = np.concatenate([np.zeros((len(basis), n_neurons), dtype=np.float32), counts])
features = np.asarray(nemos.convolve.create_convolutional_predictor(basis, padded, predictor_causality="causal"))[len(basis) :]
features = features.reshape(n_bins, -1)  # pre-synaptic neuron, then basis function
features_s = time.perf_counter() - began - sum(compile_s)

model = nemos.glm.PopulationGLM(
    regularizer="Ridge", regularizer_strength=float(data["ridge"]), solver_name="LBFGS", solver_kwargs={"tol": TOLERANCE}
)
compile_s.clear()
began = time.perf_counter()
with warnings.catch_warnings():
    warnings.simplefilter("error", RuntimeWarning)  # a fit that did not converge
    model.fit(features, counts)
coef, intercept = np.asarray(model.coef_), np.asarray(model.intercept_)
fit_s = time.perf_counter() - began - sum(compile_s)
# coef (n_pre * n_basis, n_post)
coupling = coef.T.reshape(n_neurons, n_neurons, -1)
answer(fit_s=fit_s, compile_s=sum(compile_s), features_s=features_s, bias=intercept, coupling=coupling)
