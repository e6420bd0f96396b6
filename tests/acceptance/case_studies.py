"""Single neurons with published numbers: rates, variability, intervals, and the place-cell models, in all digits their README gives.

    python tests/acceptance/case_studies.py

Needs the folder of recordings in $FITSPIKE_DATA (default: ../shared/data beside the project). The numbers are those of
case-studies/README.md; none comes from fitspike. Covariates that the file does not hold (squared position, direction) are attached.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _table import Bounds

import fitspike
from fitspike import FitResult, Recording
from fitspike.recording.tables import Signal
from fitspike.statistics import from_events

DATA = Path(os.environ.setdefault("FITSPIKE_DATA", str(Path(__file__).parents[3] / "shared" / "data")))

# the terms of the published models are these signals and nothing else; no penalty, and an optimum to 1e-10 of the coefficients
PUBLISHED = {
    "history_ms": 0.0,
    "drift_bumps": 0,
    "trial_time": False,
    "condition_time": False,
    "gain_s": 0.0,
    "ceiling": 0.0,
    "signal_before_ms": 0.0,
    "signal_after_ms": 0.0,
    "n_signal": 1,
    "standardise_signals": False,
    "ridge_signal": 0.0,
    "tolerance": 1e-14,
}


def same(b: Bounds, what: str, expected: str, found: float) -> None:
    """Check that a number rounds to the expected one, in as many digits as that is written with."""
    digits = len(expected.partition(".")[2])
    b.check(f"{what} = {expected}", f"{found:.{digits + 2}f}", f"{found:.{digits}f}" == expected)


def light_levels(b: Bounds) -> None:
    """Check a retinal neuron in low and high ambient light, 30 s each; counts of 50 ms, variance with ddof 1 as published."""
    both = fitspike.get("case-studies/light-levels")
    for light, rate_hz, fano in (("low", "25.0", "0.7165"), ("high", "32.3", "1.7781")):
        recording = both.select(conditions=[light])
        same(b, f"retinal neuron, {light} light: rate, Hz", rate_hz, recording.rates_hz[0])
        counted = from_events.count_statistics(recording.bin(1.0), 50.0, ddof=1)
        same(b, f"retinal neuron, {light} light: Fano factor, 50 ms, ddof 1", fano, counted.fano[0])
    low = both.select(conditions=["low"])
    same(b, "retinal neuron, low light: mean interval, s", "0.03999", from_events.interval_statistics(low).mean_ms[0] / 1000)
    intervals_s = np.diff(low.train_s(0))
    shape_s = 1.0 / (1.0 / intervals_s - 1.0 / intervals_s.mean()).mean()  # its maximum likelihood
    same(b, "retinal neuron, low light: inverse-Gaussian shape lambda, s", "0.04932", shape_s)


def subthalamic(b: Bounds) -> None:
    """Check a subthalamic neuron in the second before and the second after the GO cue of 50 trials."""
    recording = fitspike.get("case-studies/subthalamic")
    for when, window_s, rate_hz in (("before", (-1.0, 0.0), "38.96"), ("after", (0.0, 1.0), "54.96")):
        same(b, f"subthalamic neuron, second {when} GO: rate, Hz", rate_hz, recording.align("go", window_s).rates_hz[0])


def with_covariates(recording: Recording) -> Recording:
    """Return the place cell with the square of the position (cm^2), and whether the position rises (0 or 1)."""
    position = recording.signals["position"]
    x_cm = np.asarray(position.values, dtype=np.float64)
    rises = np.diff(x_cm, axis=0, prepend=x_cm[:1]) > 0

    def beside(values: np.ndarray, unit: str) -> Signal:
        return Signal(values, position.sampling_rate_hz, position.start_ns, unit, ("x",))

    return recording.attach(signals={"position_squared": beside(x_cm**2, "cm^2"), "rises": beside(rises.astype(np.float64), "1")})


def fit(recording: Recording, *signals: str) -> tuple[FitResult, np.ndarray]:
    """Return the fit of log rate = b0 + sum_i b_i x_i in bins of 1 ms, and b."""
    result = fitspike.fit(
        recording,
        "coupled-glm",
        settings={**PUBLISHED, "signals": signals},
        emission="poisson",
        dt_ms=1.0,
        split="none",
        simulation={"max_seconds": 0},
        report=False,
        progress="off",
    )
    weights = np.asarray(result.params["signal"]).ravel() if signals else np.zeros(0)
    return result, np.concatenate([np.asarray(result.params["bias"]).ravel(), weights])


def place_cell(b: Bounds) -> None:
    """Check the Poisson GLMs of a place cell: coefficients, place field, log-likelihoods, AIC, bits per spike."""
    recording = with_covariates(fitspike.get("case-studies/place-cell"))
    names = ((), ("position",), ("position", "position_squared"), ("position", "position_squared", "rises"))
    constant, linear, quadratic, direction = (fit(recording, *signals) for signals in names)
    scores = [result.score(recording) for result, _ in (constant, linear, quadratic, direction)]
    log_likelihood = [float(score["log_likelihood"]) for score in scores]
    same(b, "place cell, constant rate: log-likelihood", "-1692.80", log_likelihood[0])
    same(b, "place cell, position: b0", "-7.43888719", linear[1][0])
    same(b, "place cell, position: b1", "0.01294342", linear[1][1])
    b0, b1, b2 = quadratic[1]
    for name, expected, value in (("b0", "-26.279", b0), ("b1", "0.69011", b1), ("b2", "-0.0054630", b2)):
        same(b, f"place cell, + position squared: {name}", expected, value)
    same(b, "place cell, + position squared: centre, cm", "63.163", -b1 / (2 * b2))
    same(b, "place cell, + position squared: width, cm", "9.567", np.sqrt(-1 / (2 * b2)))
    same(b, "place cell, + position squared: peak, spikes per ms", "0.011285", np.exp(b0 - b1**2 / (4 * b2)))
    same(b, "place cell, + position squared: log-likelihood", "-1351.39", log_likelihood[2])
    same(b, "place cell, + position squared: AIC gain", "636.01", 2 * (log_likelihood[2] - log_likelihood[1] - 1))
    same(b, "place cell, + position squared: bits per spike", "2.239", scores[2]["bits_per_spike"])
    same(b, "place cell, + direction: b3", "3.2753", direction[1][3])
    same(b, "place cell, + direction: factor", "26.45", np.exp(direction[1][3]))
    same(b, "place cell, + direction: log-likelihood", "-1233.45", log_likelihood[3])
    same(b, "place cell, + direction: AIC gain", "233.8806", 2 * (log_likelihood[3] - log_likelihood[2] - 1))
    same(b, "place cell, + direction: bits per spike", "3.012", scores[3]["bits_per_spike"])


def main() -> None:
    """Print the table and exit with its status."""
    b = Bounds("case_studies")
    if not DATA.is_dir():
        b.check("the recordings are there", f"no folder {DATA}", False)
        b.finish()
    light_levels(b)
    subthalamic(b)
    place_cell(b)
    b.finish()


if __name__ == "__main__":
    main()
