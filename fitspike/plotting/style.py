"""How all figures look: colours that colour-blind readers tell apart, plain axes, sizes that print and scale."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

P = ParamSpec("P")

DATA = "#0072B2"
MODEL = "#D55E00"
GOOD = "#009E73"
NEUTRAL = "#6b7280"
FAINT = "#d1d5db"
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, in an order in which neighbours differ in lightness too."""
DIVERGING = "RdBu_r"
WIDTH_IN = 7.2
LONG_MS = 5000.0
"""Above this, time is given in seconds."""

RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "normal",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",
    "svg.hashsalt": "fitspike",
    "figure.dpi": 100,
    "savefig.dpi": 160,
}
FORMATS = ("png", "svg", "pdf")


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Return a drawing function that draws with these settings, whatever the user's are."""

    @functools.wraps(function)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with rc_context(RC):
            return function(*args, **kwargs)

    return draw


def new_figure(
    n_rows: int = 1, n_columns: int = 1, *, height_in: float = 2.6, width_in: float = WIDTH_IN, **grid: object
) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes, (n_rows, n_columns); `grid` goes to Figure.subplots."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(n_rows, n_columns, squeeze=False, **grid)


def new_mosaic(rows: list[list[str]], *, height_in: float, height_ratios: list[float]) -> tuple[Figure, dict[str, Axes]]:
    """Return a figure and its axes by name; a name that is repeated spans several places."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplot_mosaic(rows, height_ratios=height_ratios)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, SVG or PDF, by the path's ending; equal figures give equal files."""
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.suffix.lstrip("."), {})
    with rc_context(RC):
        figure.savefig(path, metadata=metadata)
    return path


def svg_bytes(figure: Figure) -> bytes:
    """Return a figure as SVG."""
    buffer = io.BytesIO()
    with rc_context(RC):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def time_unit(time_ms: np.ndarray) -> tuple[float, str]:
    """Return milliseconds per unit of a time axis, and the unit's name."""
    return (1000.0, "s") if len(time_ms) > 0 and time_ms[-1] > LONG_MS else (1.0, "ms")


def note(axes: Axes, text: str) -> None:
    """Write a remark in the middle of empty axes."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=NEUTRAL, fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])


def log_ticks(axis: Axis) -> None:
    """Label a logarithmic axis with few plain numbers: 1, 2 and 5 where it spans less than two decades, else powers of ten."""
    low, high = axis.get_view_interval()
    if high / low < 100:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def identity_line(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Give both axes the same limits around the finite points, and draw the line of equality."""
    values = np.concatenate([np.ravel(x), np.ravel(y)])
    values = values[np.isfinite(values) & ((values > 0) | (axes.get_xscale() != "log"))]
    if not len(values):
        return
    low, high = values.min(), values.max()
    if axes.get_xscale() == "log":
        low, high = low / 1.3, high * 1.3
    else:
        margin = 0.05 * (high - low) or 0.5
        low, high = low - margin, high + margin
    axes.plot([low, high], [low, high], color=NEUTRAL, lw=0.8, ls="--", zorder=0)
    axes.set(xlim=(low, high), ylim=(low, high))


def symmetric_limit(values: np.ndarray, percentile: float = 99.5) -> float:
    """Return a colour limit that all but a few of the non-zero sizes stay below; 1 where there are none."""
    size = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(np.percentile(size, percentile)) if len(size) else 1.0
