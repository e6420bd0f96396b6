"""Parameters of adaptive LIF neurons published in other conventions than that of `ALIF`.

Three conventions are in print. They agree on v_t = alpha v_{t-1} + zeta I_t and differ in zeta, in what a spike adds to the adaptation
variable, and in the reset. For the first two of the table voltages are divided by zeta = 1 - alpha and the adaptation variable by
1 - rho, which gives the third: weights stay, threshold / (1 - alpha), adaptation (1 - rho) / (1 - alpha).

| convention | used by | zeta | a spike adds |
| --- | --- | --- | --- |
| "lsnn-2018" | Bellec et al. 2018, NeurIPS 31 | 1 - alpha | 1 - rho |
| "e-prop-pattern" | code of the pattern generation task of Bellec et al. 2020 | 1 - alpha | 1 - rho |
| "e-prop-2020" | Bellec et al. 2020, Nature Communications 11:3625; `ALIF` with input_scaling "unit" | 1 | 1 |

"lsnn-2018" differs further in ways that no conversion mends: it compares the voltage of the bin before with the new threshold, resets by
the adaptive threshold, and scales the pseudo-derivative by it. Those are not offered.

The refractory period n_ref is counted in two ways: "lsnn-2018" blocks n_ref bins after a spike (`refractory_ms` = n_ref dt_ms), the others
n_ref - 1, so that n_ref is the shortest interval (`refractory_ms` = (n_ref - 1) dt_ms).
"""

from __future__ import annotations

import math

from fitspike.plugin import InvalidInputError, Problems

CONVENTIONS = ("lsnn-2018", "e-prop-pattern", "e-prop-2020")


def to_alif(
    convention: str, *, threshold: float, adaptation: float, tau_m_ms: float, tau_adapt_ms: float, dt_ms: float = 1.0
) -> dict[str, float]:
    """Return settings of `ALIF` (threshold, adaptation, tau_m_ms, tau_adapt_ms) with the spikes of a neuron published otherwise.

    Weights stay as they are; `input_scaling` is "unit".

    Parameters
    ----------
    convention : "lsnn-2018", "e-prop-pattern" or "e-prop-2020"
    threshold, adaptation : as published, thr and beta
    dt_ms : the bin width they were published for

    Raises
    ------
    InvalidInputError
        For another convention, or a value that is not positive (adaptation: negative).

    Examples
    --------
    >>> found = to_alif("lsnn-2018", threshold=0.01, adaptation=1.8, tau_m_ms=20.0, tau_adapt_ms=200.0)
    >>> round(found["threshold"], 3), round(found["adaptation"], 3)
    (0.205, 0.184)
    """
    problems = Problems("conversion to ALIF")
    if convention not in CONVENTIONS:
        problems.add(f"convention={convention!r} is unknown. Known: {', '.join(CONVENTIONS)}.")
    for name, value in (("threshold", threshold), ("tau_m_ms", tau_m_ms), ("tau_adapt_ms", tau_adapt_ms), ("dt_ms", dt_ms)):
        if not value > 0:
            problems.add(f"{name}={value} must be positive.")
    if not adaptation >= 0:
        problems.add(f"adaptation={adaptation} must not be negative.")
    problems.raise_if_any(InvalidInputError)
    settings = {"threshold": threshold, "adaptation": adaptation, "tau_m_ms": tau_m_ms, "tau_adapt_ms": tau_adapt_ms}
    if convention == "e-prop-2020":
        return settings
    of_membrane, of_adaptation = -math.expm1(-dt_ms / tau_m_ms), -math.expm1(-dt_ms / tau_adapt_ms)
    return {**settings, "threshold": threshold / of_membrane, "adaptation": adaptation * of_adaptation / of_membrane}
