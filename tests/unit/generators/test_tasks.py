"""Tasks: what is shown, what is asked and when, counted from the spikes and the target signal against the truth and closed forms."""

import numpy as np
import pytest
from fitspike_datasets.task_evidence import EvidenceAccumulation
from fitspike_datasets.task_pattern import PatternGeneration
from fitspike_datasets.task_store_recall import StoreRecall
from scipy import stats

from fitspike.errors import InvalidInputError


def dense(recording):
    """Return spikes (n_trials, n_bins, n_inputs) and target (n_trials, n_bins, n_out)."""
    binned = recording.bin()
    chunk = binned.chunk(range(binned.n_trials), 0, int(binned.bins_per_trial.max()))
    return chunk.dense_numpy("float64"), chunk.signal_values["target"]


def test_pattern_is_a_sum_of_the_four_sines_that_starts_at_zero():
    recording = PatternGeneration(n_targets=2).load(seed=3)
    spikes, target = dense(recording)
    assert spikes.shape == (1, 1000, 100) and target.shape == (1, 1000, 2)
    assert abs(spikes.mean() - 0.05) < 5 * np.sqrt(0.05 * 0.95 / spikes.size)
    assert (target[0, 0] == 0).all() and np.abs(target).max(1) == pytest.approx(np.ones((1, 2)))
    # over 999 steps the sines of 1, 2, 3 and 5 cycles and a constant explain everything
    t = np.arange(1000) / 999 * 2 * np.pi
    basis = np.stack([np.ones(1000), *(f(k * t) for k in (1, 2, 3, 5) for f in (np.sin, np.cos))], axis=1)
    _, residual, _, _ = np.linalg.lstsq(basis, target[0], rcond=None)
    assert (residual < 1e-20).all()
    np.testing.assert_array_equal(PatternGeneration(n_targets=2).truth(seed=3).values["target"], target[0])


def test_evidence_trial_has_cues_delay_and_recall_where_the_code_of_the_paper_has_them():
    dataset = EvidenceAccumulation(n_trials=400)
    spikes, target = dense(dataset.load(seed=1))
    truth = dataset.truth(seed=1).values
    assert spikes.shape == (400, 2250, 40)
    rate = spikes.reshape(400, 2250, 4, 10).mean(-1)  # of the groups left, right, recall, background
    for number in range(7):
        cue = rate[:, 150 * number + 50 : 150 * number + 150, :2].mean(1)
        np.testing.assert_array_equal(cue.argmax(1), truth["cues"][:, number])
        assert cue.min() == 0.0 and cue.max(1).mean() == pytest.approx(0.04, rel=0.05)
        assert not rate[:, 150 * number : 150 * number + 50, :3].any()
    assert not rate[:, 1050:2100, :3].any() and rate[:, 2100:, 2].mean() == pytest.approx(0.04, rel=0.05)
    assert rate[:, :, 3].mean() == pytest.approx(0.01, rel=0.05)
    assert not target[:, :2100].any() and (target[:, 2100:].sum(-1) == 1).all()
    majority = [np.bincount(row, minlength=2).argmax() for row in truth["cues"]]
    np.testing.assert_array_equal(target[:, -1].argmax(-1), majority)
    assert np.mean(majority) == pytest.approx(0.5, abs=5 * 0.5 / 20)
    # all seven cues are on one side in 0.7^7 + 0.3^7 = 8.3 % of trials
    assert np.mean(np.isin(truth["cues"].sum(1), (0, 7))) == pytest.approx(0.7**7 + 0.3**7, abs=5 * np.sqrt(0.08 * 0.92 / 400))


def test_numbers_of_cues_are_those_of_a_mixture_of_two_binomials():
    """Histogram of right cues in 20000 trials, favoured side left or right; five standard errors of each bar."""
    found = np.bincount(EvidenceAccumulation(n_trials=20000).truth(seed=0).values["cues"].sum(1), minlength=8) / 20000
    expected = 0.5 * (stats.binom.pmf(np.arange(8), 7, 0.7) + stats.binom.pmf(np.arange(8), 7, 0.3))
    np.testing.assert_array_less(np.abs(found - expected), 5 * np.sqrt(expected / 20000))


@pytest.mark.parametrize(
    ("task", "groups"),
    [
        (EvidenceAccumulation(n_trials=6), {"left": 10, "right": 10, "recall": 10, "background": 10}),
        (StoreRecall(n_trials=2, symbol_ms=5.0), {"bit-0": 25, "bit-1": 25, "store": 25, "recall": 25}),
        (PatternGeneration(n_inputs=7), {"noise": 7}),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_inputs_are_labelled_by_group_and_belong_to_one_population(task, groups):
    recording = task.load(seed=4)
    assert recording.neurons.labels.tolist() == [label for label, number in groups.items() for _ in range(number)]
    assert set(recording.neurons.populations.tolist()) == {"input"}
    if task.name == "evidence-accumulation":
        majority = ["left" if row.sum() < 3.5 else "right" for row in task.truth(seed=4).values["cues"]]
        binned = recording.bin()
        assert [binned.condition_names[i] for i in binned.conditions] == majority and len(set(majority)) == 2


SEEDED = [
    (EvidenceAccumulation(n_trials=4, background_hz=200.0), 10),
    (StoreRecall(n_trials=4, symbol_ms=50.0), 25),
    (PatternGeneration(rate_hz=100.0), 25),
]


@pytest.mark.parametrize(("task", "width"), SEEDED, ids=lambda one: getattr(one, "name", ""))
def test_input_spikes_are_drawn_anew_for_each_seed(task, width):
    """Where a group of `width` inputs fires in both seeds its spikes differ: their correlation is below five standard errors."""
    (first, _), (second, _) = (dense(task.load(seed=seed)) for seed in (0, 1))
    active = [np.repeat(one.reshape(*one.shape[:2], 4, width).any(-1), width, axis=-1) for one in (first, second)]
    both = active[0] & active[1]
    assert both.sum() > 2500 and abs(np.corrcoef(first[both], second[both])[0, 1]) < 5 / np.sqrt(both.sum())


def test_amplitudes_of_sines_span_a_factor_of_four():
    """Ratios of the fitted amplitudes of 500 targets: at most 2 / 0.5, and 13 % of targets have one above 3.2."""
    target = PatternGeneration(n_targets=500, n_inputs=1, trial_s=0.1).load(seed=0).bin().signals["target"]
    t = np.arange(len(target)) / (len(target) - 1) * 2 * np.pi
    basis = np.stack([np.ones(len(t)), *(f(k * t) for k in (1, 2, 3, 5) for f in (np.sin, np.cos))], axis=1)
    found = np.linalg.lstsq(basis, target, rcond=None)[0][1:].reshape(4, 2, -1)
    amplitude = np.hypot(found[:, 0], found[:, 1])
    ratio = amplitude.max(0) / amplitude.min(0)
    assert 3.2 < ratio.max() <= 4 + 1e-9


def test_store_recall_asks_for_the_last_stored_bit():
    dataset = StoreRecall(n_trials=300, symbol_ms=50.0)
    spikes, target = dense(dataset.load(seed=2))
    assert spikes.shape == (300, 600, 100) and target.shape == (300, 600, 2)
    shown = spikes.reshape(300, 12, 50, 4, 25).mean((2, 4)) > 0.02  # active groups of each symbol
    asked = target.reshape(300, 12, 50, 2).mean(2)
    n_pairs = 0
    for sequence, question in zip(shown, asked, strict=True):
        kept, n_here, since = None, 0, 0
        for (zero, one, store, recall), wanted in zip(sequence, question, strict=True):
            since += 1
            assert not (store and recall)
            assert (zero ^ one) == (not recall)
            if store:
                assert kept is None
                kept, since = int(one), 0
            if recall:
                assert kept is not None and since >= 2 and wanted[kept] == 1.0 and wanted.sum() == 1.0
                kept, n_here = None, n_here + 1
            else:
                assert not wanted.any()
        assert kept is None and n_here >= 1
        n_pairs += n_here
    truth = dataset.truth(seed=2).values
    assert (truth["answer"] >= 0).sum() == n_pairs
    assert spikes[..., 50:75][np.repeat(truth["commands"] == 1, 50, axis=1)].mean() == pytest.approx(0.05, rel=0.05)


def usable_patterns(n_symbols, command_prob):
    """Yield the places of commands and the probability of every pattern with closed pairs alone, STORE and RECALL never neighbours."""
    for code in range(2**n_symbols):
        places = [i for i in range(n_symbols) if code >> i & 1]
        if places and len(places) % 2 == 0 and all(b - a >= 2 for a, b in zip(places[::2], places[1::2], strict=True)):
            yield places, command_prob ** len(places) * (1 - command_prob) ** (n_symbols - len(places))


def test_delays_between_store_and_recall_are_those_of_the_accepted_sequences():
    """Enumerated: P(delay = d) over all usable command patterns of 5 symbols."""
    dataset = StoreRecall(n_trials=20000, n_symbols=5, symbol_ms=1.0, command_prob=0.3, group_size=1)
    commands = dataset.truth(seed=0).values["commands"] > 0
    weight, expected = 0.0, np.zeros(5)
    for places, prob in usable_patterns(5, 0.3):
        weight += prob
        expected[places[1] - places[0]] += prob
    first = [np.flatnonzero(row)[:2] for row in commands]
    found = np.bincount([b - a for a, b in first], minlength=5) / len(first)
    np.testing.assert_allclose(found, expected / weight, atol=5 * np.sqrt(0.25 / 20000))


@pytest.mark.parametrize(
    ("task", "settings", "texts"),
    [
        (EvidenceAccumulation, {"n_cues": 6, "majority": 0.4}, ("n_cues=6 can end in a draw", "majority=0.4")),
        (EvidenceAccumulation, {"cue_ms": 0.0, "n_trials": 0}, ("cue_ms=0.0 must be positive", "n_trials=0 must be positive")),
        (EvidenceAccumulation, {"gap_ms": -50.0, "delay_ms": -1.0}, ("gap_ms=-50.0 must not be negative", "delay_ms=-1.0 must not")),
        (EvidenceAccumulation, {"background_hz": -1.0}, ("background_hz=-1.0 must not be negative",)),
        (EvidenceAccumulation, {"recall_ms": 1.0, "dt_ms": 5.0}, ("recall_ms=1.0 is no whole number of bins of 5.0 ms",)),
        (EvidenceAccumulation, {"recall_ms": 1e-9}, ("recall_ms=1e-09 is no whole number of bins",)),
        (EvidenceAccumulation, {"cue_hz": 2000.0}, ("cue_hz=2000.0 is more than a spike per bin of 1.0 ms. Use at most 1000",)),
        (PatternGeneration, {"trial_s": 0.001}, ("trial_s=0.001 is not two or more whole bins",)),
        (PatternGeneration, {"dt_ms": 0.3}, ("trial_s=1.0 is not two or more whole bins of 0.3 ms",)),
        (StoreRecall, {"symbol_ms": 7.0, "dt_ms": 2.0}, ("symbol_ms=7.0 is no whole number of bins of 2.0 ms",)),
        (StoreRecall, {"n_symbols": 2, "command_prob": 1.0}, ("at least 3", "command_prob=1.0 is outside")),
        (StoreRecall, {"n_trials": 2.5, "rate_hz": "ten"}, ("n_trials=2.5 must be a whole number", "rate_hz='ten' must be a number")),
        (EvidenceAccumulation, {"n_cues": 3.5}, ("n_cues=3.5 must be a whole number",)),
        (StoreRecall, {"dt_ms": 0.0}, ("dt_ms=0.0 must be positive",)),
    ],
)
def test_settings_are_checked(task, settings, texts):
    with pytest.raises(InvalidInputError) as caught:
        task(**settings)
    assert all(text in str(caught.value) for text in texts)


@pytest.mark.parametrize(("n_symbols", "command_prob"), [(12, 1e-6), (3, 1 - 1e-6)])
def test_store_recall_refuses_sequences_that_hardly_ever_close(n_symbols, command_prob):
    """Drawn until they fit, 12 symbols at a probability of 1e-6 would take 1e10 draws, and three commands of three are never closed."""
    with pytest.raises(InvalidInputError, match="are needed to draw them"):
        StoreRecall(n_symbols=n_symbols, command_prob=command_prob)


def test_share_of_usable_sequences_is_that_of_all_patterns():
    for n_symbols, command_prob in ((3, 0.5), (5, 0.3), (9, 1 / 7)):
        usable = sum(prob for _, prob in usable_patterns(n_symbols, command_prob))
        assert StoreRecall(n_symbols=n_symbols, command_prob=command_prob)._usable() == pytest.approx(usable, abs=1e-14)


def test_delays_may_be_left_out():
    spikes, target = dense(EvidenceAccumulation(n_trials=2, gap_ms=0.0, delay_ms=0.0, background_hz=0.0).load())
    assert spikes.shape == (2, 850, 40) and not spikes[:, :, 30:].any()
    assert (target.sum(-1) == np.repeat([0.0, 1.0], [700, 150])).all()


@pytest.mark.parametrize("task", [PatternGeneration, EvidenceAccumulation, StoreRecall])
def test_inputs_beyond_memory_are_refused_before_they_are_drawn(task):
    with pytest.raises(InvalidInputError, match=r"take [\d.]+ GB while they are drawn.*fewer trials or inputs, or wider bins"):
        task(dt_ms=1e-5).load()
