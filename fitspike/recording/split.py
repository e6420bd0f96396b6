"""Training and test parts of a recording: by trial, by time with a gap, by neuron for co-smoothing."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from fitspike.errors import InvalidInputError, Problems, RecordingError, did_you_mean
from fitspike.recording.binning import width_ns
from fitspike.recording.recording import Recording
from fitspike.recording.tables import TrialTable
from fitspike.rng import Stream
from fitspike.units import NS_PER_S, s_to_ns

KINDS = ("auto", "time", "trial", "neuron", "none")
MIN_TRIALS = 5
"""From this many trials on, "auto" splits by trial."""


@dataclass(frozen=True)
class SplitSettings:
    """How to split.

    by : "time", "trial", "neuron", "none", or "auto": by trial from 5 trials on, else by time
    test_fraction : of the time of each trial, of the trials of each condition, or of the neurons
    gap_s : time before the test part that belongs to neither (by time), or around test trials (by trial)
    warmup_s : by time, how much of the data before the test part feeds its history; never scored
    every, offset : by trial, trial n of its condition is a test trial if n % every == offset. Default: round(1 / test_fraction), every - 1
    column : by trial, the trial column that holds n (such as the number of the repeat)
    test_trials : by trial, the rows of the test trials; then test_fraction, every, offset and column do not matter
    seed : by trial, draw the test trials of each condition at random (None: every n-th); by neuron, draw the neurons (None: 0)
    """

    by: str = "auto"
    test_fraction: float = 0.2
    gap_s: float = 0.0
    warmup_s: float = 5.0
    every: int | None = None
    offset: int | None = None
    column: str | None = None
    test_trials: tuple[int, ...] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        problems = Problems("split settings")
        if self.by not in KINDS:
            problems.add(f"no split by {self.by!r}{did_you_mean(self.by, KINDS)} Known: {', '.join(KINDS)}.")
        if not 0 < self.test_fraction < 1:
            problems.add(f"test_fraction={self.test_fraction}; expected a number between 0 and 1, such as 0.2.")
        for name in ("gap_s", "warmup_s"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                problems.add(f"{name}={getattr(self, name)}; expected 0 or more seconds.")
        if self.every is not None and self.every < 2:
            problems.add(f"every={self.every}; expected 2 or more, or nothing is left to train on.")
        if self.offset is not None and not 0 <= self.offset < self.period:
            problems.add(f"offset={self.offset}; expected 0 to {self.period - 1}, as one trial in {self.period} is for testing.")
        if self.test_trials is not None and not self.test_trials:
            problems.add("test_trials is empty. Name at least one trial.")
        problems.raise_if_any(InvalidInputError)

    @property
    def period(self) -> int:
        """Return how many trials there are to each test trial."""
        return self.every or max(2, round(1 / self.test_fraction))

    def as_text(self) -> str:
        """Return the text that `parse_split` reads back as these settings."""
        parts = []
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name != "by" and value != item.default:
                parts.append(f"{_SHORT.get(item.name, item.name)}={'+'.join(map(str, value)) if item.name == 'test_trials' else value}")
        return f"{self.by}:{','.join(parts)}" if parts else self.by


_SHORT = {"test_fraction": "fraction", "gap_s": "gap", "warmup_s": "warmup", "test_trials": "test"}
_LONG = {short: name for name, short in _SHORT.items()}


@dataclass(frozen=True, eq=False)
class Split:
    """The parts. Times scored in `train` and in `test` do not overlap; warm-up times of `test` may lie in training time.

    test is None where nothing is held out. held_out_neurons (n_neurons,) bool marks the neurons that are predicted from the others in a
    co-smoothing test, None where all are alike. description says in words what was done.
    """

    train: Recording
    test: Recording | None
    held_out_neurons: np.ndarray | None
    description: str


def parse_split(text: str) -> SplitSettings:
    """Return the settings that a text such as "time:0.2", "trial:every=5,offset=4,column=repeat", "trial:test=2+7" or "none" stands for.

    Before the colon: by. After it, separated by commas: fraction, gap (s), warmup (s), every, offset, column, test (trials joined by "+",
    a range as "3-7"), seed; a bare number is the fraction, and so is `test=0.2`.

    Raises
    ------
    InvalidInputError
        If a part is unknown or no number; the text lists every problem.
    """
    by, _, rest = text.strip().partition(":")
    problems = Problems(f"split {text!r}")
    known = ("fraction", "gap", "warmup", "every", "offset", "column", "test", "seed")
    options: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            key, value = "fraction", part
        if key == "test" and "." in value:
            key = "fraction"
        if key not in known:
            problems.add(f"no option {key!r}{did_you_mean(key, known)} Known: {', '.join(known)}.")
            continue
        name = _LONG.get(key, key)
        try:
            options[name] = _READ[name](value)
        except ValueError:
            problems.add(f"{key}={value} cannot be read. Write for example {_EXAMPLE[key]}.")
    problems.raise_if_any(InvalidInputError)
    return SplitSettings(by=by, **options)


def _read_trials(text: str) -> tuple[int, ...]:
    """Return the rows of "2", "2+7" or "3-7+9"."""
    rows: list[int] = []
    for part in text.split("+"):
        first, dash, last = part.partition("-")
        rows += range(int(first), int(last) + 1) if dash else [int(first)]
    return tuple(rows)


_READ = {"test_fraction": float, "gap_s": float, "warmup_s": float, "every": int, "offset": int, "column": str, "seed": int}
_READ["test_trials"] = _read_trials
_EXAMPLE = {"fraction": "0.2", "gap": "gap=1.0", "warmup": "warmup=5", "every": "every=5", "offset": "offset=4", "seed": "seed=0"}
_EXAMPLE["test"] = "test=2+7"


def split(recording: Recording, settings: SplitSettings | str = "auto", *, dt_ms: float | None = None) -> Split:
    """Return the training and test parts of a recording.

    By time: the last `test_fraction` of each trial is for testing. The cut falls on a whole bin of `dt_ms` (default: the native bin width,
    else 1 ms) counted from the trial's start, training gets floor((1 - test_fraction) n_bins) of them, less the gap. The test part begins
    up to `warmup_s` earlier with warm-up time.
    By trial: see `SplitSettings`. Training trials that share time with a test trial, or come nearer to one than the gap, are left out.
    By neuron: trials or times as "auto", and a random `test_fraction` of the neurons is held out for co-smoothing.

    Raises
    ------
    InvalidInputError, RecordingError, UnknownNameError
        If the settings are wrong, or nothing would be left to train on or to test with.
    """
    settings = parse_split(settings) if isinstance(settings, str) else settings
    if settings.by == "none":
        return Split(recording, None, None, "no test part")
    by = settings.by
    if by in ("auto", "neuron"):
        by = "trial" if recording.n_trials >= MIN_TRIALS else "time"
    parts = _by_trial(recording, settings) if by == "trial" else _by_time(recording, settings, dt_ms)
    if settings.by != "neuron":
        return parts
    n_held_out = round(settings.test_fraction * recording.n_neurons)
    if not 0 < n_held_out < recording.n_neurons:
        raise RecordingError(
            f"a fraction of {settings.test_fraction:g} of {recording.n_neurons} neurons is {n_held_out}; "
            "co-smoothing needs neurons on both sides."
        )
    held_out = np.zeros(recording.n_neurons, dtype=bool)
    held_out[Stream(settings.seed or 0, "split/neurons").numpy().permutation(recording.n_neurons)[:n_held_out]] = True
    return replace(parts, held_out_neurons=held_out, description=f"{parts.description}; {n_held_out} neurons held out for co-smoothing")


def _by_time(recording: Recording, settings: SplitSettings, dt_ms: float | None) -> Split:
    width = width_ns(recording, dt_ms)
    trials = recording.trials
    if trials.overlapping().any():
        raise RecordingError("trials overlap, so that the end of one may be the beginning of another. Split by trial.")
    # scored time is what is split: a warm-up that the trials bring stays in front of the training part
    scored_start = trials.start_ns + trials.warmup_ns
    n_bins = (trials.stop_ns - scored_start) // width
    # 1e-9: a fraction such as 0.2 of a whole number of bins is meant to be whole
    n_training = np.floor((1 - settings.test_fraction) * n_bins + 1e-9).astype(np.int64)
    cut = scored_start + n_training * width
    gap = -(-int(s_to_ns(settings.gap_s)) // width) * width
    warmup = int(s_to_ns(settings.warmup_s)) // width * width
    train = trials.narrow(trials.start_ns, np.maximum(cut - gap, trials.start_ns))
    begin = np.maximum(cut - warmup, cut - (cut - trials.start_ns) // width * width)
    test = replace(trials.narrow(begin, trials.stop_ns), warmup_ns=cut - begin)
    usable_train = np.flatnonzero(train.duration_ns - train.warmup_ns >= width)
    usable_test = np.flatnonzero(n_bins - n_training >= 1)
    if not usable_train.size or not usable_test.size:
        side = "train on" if not usable_train.size else "test with"
        raise RecordingError(
            f"splitting {recording.duration_s:.6g} s in {len(trials)} trials at {1 - settings.test_fraction:.0%} with a gap of "
            f"{settings.gap_s:g} s leaves nothing to {side}. Use another fraction, a shorter gap, or split by trial."
        )
    gap_text = f", {gap / NS_PER_S:g} s before them left out" if gap else ""
    where = "the recording" if len(trials) == 1 else "each trial"
    seconds = (test.duration_ns - test.warmup_ns)[usable_test].sum() / NS_PER_S
    text = f"by time: the last {settings.test_fraction:.0%} of {where} ({seconds:g} s) for testing{gap_text}"
    return Split(recording.with_trials(train.select(usable_train)), recording.with_trials(test.select(usable_test)), None, text)


def _by_trial(recording: Recording, settings: SplitSettings) -> Split:
    trials = recording.trials
    is_test, rule = _chosen_trials(trials, settings)
    if not is_test.any() or is_test.all():
        side = "train on" if is_test.all() else "test with"
        raise RecordingError(f"splitting {len(trials)} trials ({rule}) leaves none to {side}. Use another rule, or split by time.")
    too_near = _near_any(trials, is_test, int(s_to_ns(settings.gap_s))) & ~is_test
    if (too_near | is_test).all():
        raise RecordingError(
            "every training trial shares time with a test trial or its gap. Use shorter windows or gaps, or split by time."
        )
    text = f"by trial: {np.count_nonzero(is_test)} of {len(trials)} trials for testing ({rule})"
    if too_near.any():
        reason = "share time with a test trial" if settings.gap_s == 0 else f"come nearer than {settings.gap_s:g} s to a test trial"
        text += f"; {np.count_nonzero(too_near)} training trials that {reason} left out"
    train, test = (recording.with_trials(trials.select(np.flatnonzero(mask))) for mask in (~is_test & ~too_near, is_test))
    return Split(train, test, None, text)


def _ranges(rows: list[int]) -> str:
    """Return sorted numbers in words: 1, 4-6."""
    parts: list[list[int]] = []
    for row in rows:
        if parts and row == parts[-1][1] + 1:
            parts[-1][1] = row
        else:
            parts.append([row, row])
    return ", ".join(str(low) if low == high else f"{low}-{high}" if high > low + 1 else f"{low}, {high}" for low, high in parts)


def _chosen_trials(trials: TrialTable, settings: SplitSettings) -> tuple[np.ndarray, str]:
    """Return which trials are for testing, (n_trials,) bool, and the rule in words."""
    chosen = np.zeros(len(trials), dtype=bool)
    if settings.test_trials is not None:
        if min(settings.test_trials) < 0 or max(settings.test_trials) >= len(trials):
            raise RecordingError(f"test trials {settings.test_trials} asked for; trials are counted from 0 to {len(trials) - 1}.")
        chosen[list(settings.test_trials)] = True
        return chosen, f"trials {_ranges(np.flatnonzero(chosen).tolist())}"
    period = settings.period
    offset = period - 1 if settings.offset is None else settings.offset
    if settings.column is not None:
        number = trials.column(settings.column)
        if number.dtype.kind == "f" and not (np.isfinite(number) & (number == np.rint(number))).all():
            raise RecordingError(f"trial column {settings.column!r} holds fractions or NaN. Name a column of whole numbers.")
        if number.dtype.kind not in "iuf":
            raise RecordingError(f"trial column {settings.column!r} holds {number.dtype}, not numbers. Name a column of whole numbers.")
        return number.astype(np.int64) % period == offset, f"{settings.column} % {period} == {offset}"
    rank = np.empty(len(trials), dtype=np.int64)
    names = np.unique(trials.conditions)
    # conditions with fewer trials than the period are dealt out together, in the order of the trials
    rare = np.isin(trials.conditions, [name for name in names if np.count_nonzero(trials.conditions == name) < period])
    groups = [rare, *((trials.conditions == name) & ~rare for name in names)]
    generator = None if settings.seed is None else Stream(settings.seed, "split/trials").numpy()
    for group in groups:
        members = np.flatnonzero(group)
        rank[members] = np.arange(len(members)) if generator is None else generator.permutation(len(members))
    rule = f"one in {period}" + ("" if generator is None else f" at random, seed {settings.seed}")
    return rank % period == offset, rule + (" within its condition" if len(names) > 1 else "")


def _near_any(trials: TrialTable, is_test: np.ndarray, gap_ns: int) -> np.ndarray:
    """Return which trials come nearer than the gap to a test trial's scored time or share time with it, (n_trials,) bool."""
    order = np.argsort(trials.start_ns[is_test], kind="stable")
    start, stop = trials.start_ns[is_test][order], trials.stop_ns[is_test][order]
    reach = np.concatenate([[np.iinfo(np.int64).min], np.maximum.accumulate(stop)])
    # the test trials that start before this trial's end (plus gap): does the latest of their stops reach into it?
    before = np.searchsorted(start, trials.stop_ns + gap_ns, side="left")
    return reach[before] > trials.start_ns - gap_ns
