"""What a held-out score computes and how far it goes."""

from __future__ import annotations

from dataclasses import dataclass

from fitspike.errors import Problems


@dataclass(frozen=True)
class ScoreSettings:
    """Settings of `fitspike.scoring.score_model`.

    n_bootstrap: bootstrap samples over blocks. block_s: length of time blocks, s (default: trials, or a fortieth of the data).
    psth_window_ms: window of the PSTH correlation. n_neuron_groups, n_samples, co_smoothing_bins: co-smoothing hides one group of neurons
    at a time, averages over this many sampled histories of the hidden ones, and stops after this many bins of the data; 0 bins leaves it
    out. chunk_values: entries (trials x bins x neurons) handled at a time.
    """

    n_bootstrap: int = 1000
    block_s: float | None = None
    psth_window_ms: float = 20.0
    n_neuron_groups: int = 4
    n_samples: int = 8
    co_smoothing_bins: int = 5000
    chunk_values: int = 4_000_000

    def __post_init__(self) -> None:
        problems = Problems("score settings")
        for name, least in (("n_bootstrap", 2), ("n_neuron_groups", 2), ("n_samples", 1), ("co_smoothing_bins", 0), ("chunk_values", 1)):
            if getattr(self, name) < least:
                problems.add(f"{name}={getattr(self, name)} must be at least {least}.")
        if self.block_s is not None and self.block_s <= 0:
            problems.add(f"block_s={self.block_s} must be positive.")
        if self.psth_window_ms <= 0:
            problems.add(f"psth_window_ms={self.psth_window_ms} must be positive.")
        problems.raise_if_any()
