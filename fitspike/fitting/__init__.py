"""fit(): the one place where all parts meet."""

from fitspike.fitting.pipeline import fit, run_fit

__all__ = ["fit", "run_fit"]
