"""Optimum and gradient of the coupled GLM against other people's code, and coverage of its intervals on networks of known parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import statsmodels.api as sm
import torch
from _table import Bounds
from fitspike_datasets.generators_glm import CoupledGLMNetwork
from sklearn.linear_model import LogisticRegression, PoissonRegressor

import fitspike
from fitspike import FitResult, Recording
from fitspike.models.coupled_glm import CoupledGLM
from fitspike.models.glm_covariates import fixed_numbers
from fitspike.models.glm_problem import Problem
from fitspike.recording.tables import Signal

DT_MS = 5.0
ONLY_FILTERS = {
    "trial_time": False,
    "condition_time": False,
    "drift_bumps": 0,
    "population_ms": 0.0,
    "gain_s": 0.0,
    "ceiling": 0.0,
    "signal_before_ms": 0.0,
    "signal_after_ms": 0.0,
    "n_signal": 1,
    "standardise_signals": False,
    "stabilise": "off",
    "standard_errors": True,
}
"""Spike filters and the signal of the bin itself; nothing is done after the convex fit."""

# Boxes of lags, since their design is a moving mean that takes one line: history of 3 x 4 bins, couplings of 2 x 3 bins.
DENSE = {**ONLY_FILTERS, "basis": "boxes", "history_ms": 60.0, "n_history": 3, "coupling_ms": 30.0, "n_coupling": 2, "tolerance": 1e-14}
N_NEURONS, N_TRIALS, N_BINS = 5, 3, 800
RIDGE = 2.5


def fit(recording: Recording, settings: Mapping[str, object], emission: str, dt_ms: float = DT_MS) -> FitResult:
    """Return the fit of all data with these settings."""
    quiet = {"split": "none", "selection": False, "simulation": {"max_seconds": 0}, "report": False, "progress": "off"}
    return fitspike.fit(recording, "coupled-glm", settings=settings, emission=emission, dt_ms=dt_ms, **quiet)


def ridges(value: float) -> dict[str, float]:
    """Return the same ridge on every term."""
    return {f"ridge_{name}": value for name in ("signal", "time", "drift", "population", "history", "coupling")}


# -- a small dense problem -----------------------------------------------------------------------------------------------------------------


def dense_problem(seed: int = 3) -> tuple[Recording, np.ndarray, list[np.ndarray]]:
    """Return a recording, its counts (n_trials * n_bins, n_neurons) and each neuron's design without the constant, 0/1 counts.

    Columns: two signal channels, three boxes of own history, two boxes of each other neuron.
    """
    random = np.random.Generator(np.random.Philox(seed))
    light = np.cumsum(random.standard_normal((N_TRIALS, N_BINS, 2)), axis=1)
    light /= light.std(axis=(0, 1))
    counts = np.zeros((N_TRIALS, N_BINS, N_NEURONS), dtype=np.int64)
    trace = np.zeros((N_TRIALS, N_NEURONS))
    for t in range(N_BINS):
        drive = np.log(0.15) + 0.4 * light[:, t, :1] - 0.8 * trace + 0.6 * np.roll(trace, 1, axis=1)
        counts[:, t] = random.random(trace.shape) < np.exp(np.minimum(drive, 0.0))
        trace = 0.6 * trace + counts[:, t]
    recording = Recording.from_trials(
        [[np.flatnonzero(trial[:, i]) * DT_MS / 1000 for i in range(N_NEURONS)] for trial in counts],
        durations_s=N_BINS * DT_MS / 1000,
        gap_s=0.0,
    )
    signal = Signal(light.reshape(-1, 2), 1000 / DT_MS, int(recording.trials.start_ns[0]), "", ("x", "y"))
    recording = recording.attach(signals={"light": signal})

    def box(pre: int, first: int, last: int) -> np.ndarray:
        """Return the mean count of a neuron over lags first to last, trial by trial."""
        lagged = [np.pad(counts[:, :-lag, pre], ((0, 0), (lag, 0))) for lag in range(first, last + 1)]
        return np.mean(lagged, axis=0).ravel()

    designs = []
    for post in range(N_NEURONS):
        own = [box(post, 1, 4), box(post, 5, 8), box(post, 9, 12)]
        others = [box(pre, *lags) for pre in range(N_NEURONS) if pre != post for lags in ((1, 3), (4, 6))]
        designs.append(np.column_stack([light.reshape(-1, 2), *own, *others]))
    return recording, counts.reshape(-1, N_NEURONS), designs


def row_of(params: Mapping[str, np.ndarray], post: int) -> np.ndarray:
    """Return a neuron's parameters in the order of the design, the constant first."""
    others = np.arange(N_NEURONS) != post
    parts = [np.atleast_1d(params["bias"][post]), *(params[name][post] for name in ("signal", "history")), params["coupling"][post][others]]
    return np.concatenate([np.ravel(part) for part in parts])


def objective(row: torch.Tensor, design: np.ndarray, counts: np.ndarray, ridge: float, emission: str) -> torch.Tensor:
    """Return the penalised negative log-likelihood of one neuron in plain torch, float64, without factorials."""
    drive = row[0] + torch.as_tensor(design) @ row[1:]
    normaliser = torch.exp(drive) if emission == "poisson" else torch.nn.functional.softplus(drive)
    return (normaliser - torch.as_tensor(counts, dtype=torch.float64) * drive).sum() + 0.5 * ridge * (row[1:] ** 2).sum()


def check_optimum(b: Bounds) -> None:
    """Check parameters and objective against scikit-learn under a ridge, parameters and standard errors against statsmodels without one."""
    recording, counts, designs = dense_problem()
    for emission, solver in (("poisson", "newton"), ("poisson", "lbfgs"), ("bernoulli", "auto")):
        result = fit(recording, {**DENSE, **ridges(RIDGE), "solver": solver, "precision": "float64"}, emission)
        furthest = above = 0.0
        for post, design in enumerate(designs):
            if emission == "poisson":  # minimises the mean of rate - count * log(rate), plus alpha / 2 times the squared weights
                other = PoissonRegressor(alpha=RIDGE / len(design), tol=1e-12, max_iter=10_000, solver="newton-cholesky")
            else:
                other = LogisticRegression(C=1 / RIDGE, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
            other.fit(design, counts[:, post])
            theirs = np.append(np.ravel(other.intercept_), other.coef_)
            ours = row_of(result.params, post)
            value = [float(objective(torch.as_tensor(row), design, counts[:, post], RIDGE, emission)) for row in (ours, theirs)]
            furthest, above = max(furthest, np.abs(ours - theirs).max()), max(above, abs(value[0] - value[1]))
        name = f"{emission}, ridge {RIDGE:g}, solver {solver}: "
        b.check(f"{name}parameters equal scikit-learn's to 1e-6", f"{furthest:.1e}", furthest < 1e-6)
        b.check(f"{name}objective equals scikit-learn's to 1e-6 nats", f"{above:.1e}", above < 1e-6)
    for emission, family in (("poisson", sm.families.Poisson()), ("bernoulli", sm.families.Binomial())):
        result = fit(recording, {**DENSE, **ridges(0.0)}, emission)
        error = {name: result.extras[f"standard_error_{name}"] for name in ("bias", "signal", "history", "coupling")}
        furthest = ratio = 0.0
        for post, design in enumerate(designs):
            other = sm.GLM(counts[:, post], sm.add_constant(design), family=family).fit(tol=1e-14, maxiter=200)
            furthest = max(furthest, np.abs(row_of(result.params, post) - other.params).max())
            ratio = max(ratio, np.abs(row_of(error, post) / other.bse - 1).max())
        b.check(f"{emission}, no penalty: parameters equal statsmodels' to 1e-6", f"{furthest:.1e}", furthest < 1e-6)
        b.check(f"{emission}, no penalty: standard errors equal statsmodels' to 1e-6, relative", f"{ratio:.1e}", ratio < 1e-6)


def check_gradient(b: Bounds) -> None:
    """Check objective and gradient, straight from events, against autograd through the dense objective, away from the optimum."""
    recording, counts, designs = dense_problem()
    random = np.random.Generator(np.random.Philox(5))
    binned = recording.bin(DT_MS)
    for emission in ("poisson", "bernoulli"):
        layout = CoupledGLM(**{**DENSE, **ridges(RIDGE), "emission": emission}).layout(binned.info())
        rows = 0.3 * random.standard_normal((N_NEURONS, layout.n_weights)) * layout.free
        for backend in ("numba", "reference"):
            problem = Problem(layout, fixed_numbers(layout, binned), binned, backend=backend)
            value, gradient = problem.evaluate(rows, np.arange(N_NEURONS))
            slopes, params = layout.unpack(gradient), layout.unpack(rows)
            furthest = off = 0.0
            for post, design in enumerate(designs):
                row = torch.tensor(row_of(params, post), requires_grad=True)
                dense = objective(row, design, counts[:, post], RIDGE, emission)
                dense.backward()
                theirs = row.grad.numpy()
                furthest = max(furthest, np.abs(row_of(slopes, post) - theirs).max() / np.abs(theirs).max())
                off = max(off, abs(value[post] / dense.item() - 1))
            name = f"{emission}, {backend}: "
            b.check(f"{name}gradient equals autograd to 1e-10 of its largest entry, float64", f"{furthest:.1e}", furthest < 1e-10)
            b.check(f"{name}objective equals the dense one to 1e-10, relative", f"{off:.1e}", off < 1e-10)


# -- coverage ------------------------------------------------------------------------------------------------------------------------------

Z_95 = 1.959963984540054
KNOWN = {**ONLY_FILTERS, **ridges(0.0), "history_ms": 60.0, "n_history": 3, "coupling_ms": 40.0, "n_coupling": 2}
N_KNOWN, KNOWN_S, N_NETWORKS = 10, 600.0, 8


def z_scores(result: FitResult, truth: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return (estimate - truth) / standard error of every parameter that is estimated, by name."""
    found = {}
    for name, value in truth.items():
        error = np.asarray(result.extras[f"standard_error_{name}"])
        is_estimated = ~np.isnan(error)
        found[name] = ((np.asarray(result.params[name]) - value) / error)[is_estimated]
    return found


def poisson_network(seed: int) -> dict[str, np.ndarray]:
    """Simulate a network with the model itself, from the public interface, and return the z-scores of a fit to it in the same bins.

    Rates of 5 to 40 Hz over 10 min give every neuron 2000 spikes or more: every pair has hundreds of spikes within a filter's window, so
    that no estimate is near a boundary and the finite-sample bias is small against the errors. Couplings are weak enough to be stable.
    """
    random = np.random.Generator(np.random.Philox(100 + seed))
    blank = Recording.from_counts(random.poisson(0.1, (1, 2000, N_KNOWN)), dt_ms=DT_MS)
    template = fit(blank, {**KNOWN, "standard_errors": False}, "poisson")
    coupling = random.normal(0.0, 0.4, (N_KNOWN, N_KNOWN, 2))
    coupling[np.arange(N_KNOWN), np.arange(N_KNOWN)] = 0.0
    truth = {
        "bias": np.log(np.exp(random.uniform(np.log(5.0), np.log(40.0), N_KNOWN)) * DT_MS / 1000),
        "history": np.column_stack([random.normal(-1.5, 0.5, N_KNOWN), *random.normal(-0.2, 0.4, (2, N_KNOWN))]),
        "coupling": coupling,
    }
    known = replace(template, params={**template.params, **truth})
    recording = known.simulate(n_trials=1, duration_s=KNOWN_S, seed=seed)
    return z_scores(fit(recording, KNOWN, "poisson"), truth)


def bernoulli_network(seed: int) -> dict[str, np.ndarray]:
    """Return the z-scores of a fit to a network of the generator, which shares no code with the model: log-odds, exponential filters."""
    tau_ms = 10.0
    network = CoupledGLMNetwork(
        n_neurons=12,
        duration_s=400.0,
        rate_hz=10.0,
        connection_probability=0.3,
        weight=0.4,
        inhibition_ratio=1.0,
        min_delay_ms=1.0,
        max_delay_ms=1.0,
        coupling_tau_ms=tau_ms,
        history_tau_ms=tau_ms,
        history_weight=-2.0,
    )
    truth = network.truth(seed=seed)
    window = {name: value for term in ("history", "coupling") for name, value in ((f"{term}_ms", 3 * tau_ms), (f"n_{term}", 1))}
    result = fit(network.load(seed=seed), {**ONLY_FILTERS, **ridges(0.0), **window, "basis": "exponential"}, "bernoulli", network.dt_ms)
    per_jump = 1 / (1 - np.exp(-network.dt_ms / tau_ms))  # a jump's sum over lags
    expected = {
        "bias": truth.values["bias"],
        "history": np.full((12, 1), network.history_weight * per_jump),
        "coupling": truth.weight[:, :, None] * per_jump,
    }
    return z_scores(result, expected)


def check_coverage(b: Bounds) -> None:
    """Check that 95 % intervals of unpenalised parameters hold the true value in 93 to 97 % of at least 1000 parameters."""
    for name, simulate in (("poisson networks of the model", poisson_network), ("bernoulli networks of the generator", bernoulli_network)):
        networks = [simulate(seed) for seed in range(N_NETWORKS)]
        terms = {term: np.concatenate([z[term] for z in networks]) for term in networks[0]}
        every = np.concatenate(list(terms.values()))
        share = float((np.abs(every) < Z_95).mean())
        figure = f"{100 * share:.2f} % of {every.size} parameters of {len(networks)} networks"
        b.check(f"{name}: 95 % intervals cover 93 to 97 %", figure, 0.93 <= share <= 0.97 and every.size >= 1000 and len(networks) >= 5)
        parts = ", ".join(
            f"{term} {100 * (np.abs(z) < Z_95).mean():.1f} % of {z.size} (z mean {z.mean():+.3f}, sd {z.std():.3f})"
            for term, z in terms.items()
        )
        b.note(f"{name}: {parts}")
