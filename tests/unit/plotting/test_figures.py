"""Figures hold the numbers they were given, with units, in the right orientation, from the files of a run folder alone."""

import json
import shutil

import matplotlib
import numpy as np
import pytest
from click.testing import CliRunner

from fitspike.cli.main import cli
from fitspike.errors import InvalidInputError, RunFolderError, UnknownNameError
from fitspike.plotting import connectivity, figures, learning_curve, populations, psth, raster, statistics, style
from fitspike.plotting.learning_curve import draw_learning_curve
from fitspike.plotting.report import _embedded
from fitspike.plotting.run_files import RunFiles


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_raster_puts_neurons_in_order_of_rate_and_shows_the_population_rate():
    time = np.array([0.1, 0.2, 0.3, 0.5, 0.9])
    neuron, count = np.array([2, 2, 2, 0, 0]), np.array([1, 1, 1, 1, 3])
    figure = raster.draw_raster({"data": (time, neuron, count)}, 3, 1.0)
    drawn = figure.axes[0].lines[0].get_xydata()
    np.testing.assert_array_equal(drawn[:, 0], time)
    np.testing.assert_array_equal(drawn[:, 1], [1, 1, 1, 2, 2])  # neuron 0 has most spikes, neuron 1 is silent: lowest row
    values, edges, _ = figure.axes[1].patches[0].get_data()
    assert (values * np.diff(edges)).sum() * 3 == pytest.approx(7)  # spikes
    assert "time (s)" in texts(figure) and "Hz" in texts(figure)


def test_raster_of_a_thousand_neurons_is_a_small_file(tmp_path):
    rng = np.random.default_rng(0)
    train = np.sort(rng.uniform(0, 10, 50_000)), rng.integers(0, 1000, 50_000), np.ones(50_000, int)
    path = style.save(raster.draw_raster({"data": train, "simulation": train}, 1000, 10.0), tmp_path / "raster.svg")
    assert path.stat().st_size < 2_000_000


def test_coupling_matrix_is_post_by_pre_with_a_symmetric_scale():
    weight = np.zeros((3, 3))
    weight[2, 0] = -4.0  # neuron 0 inhibits neuron 2
    weight[0, 1] = 1.0
    figure = connectivity.draw_coupling_matrix(weight, is_significant=weight != 0, neuron_ids=np.array(["a", "b", "c"]))
    axes = figure.axes[0]
    shown = axes.images[0].get_array()
    assert shown[2, 0] == -4.0 and shown[0, 2] == 0.0
    assert axes.get_xlabel() == "from (pre)" and axes.get_ylabel() == "to (post)"
    low, high = axes.images[0].get_clim()
    assert low == -high and high > 1
    np.testing.assert_array_equal(sorted(map(tuple, axes.lines[0].get_xydata())), [(0, 2), (1, 0)])  # x pre, y post


def test_filters_of_one_lag_are_bars_over_channels():
    filters = np.array([[[0.5, -1.0]], [[3.0, 2.0]]])  # two neurons, one lag, two channels
    figure = connectivity.draw_stimulus_filters(np.array([0.0]), filters, "position", np.array(["a", "b"]))
    strongest = figure.axes[0]
    assert strongest.get_title(loc="left") == "b" and [bar.get_height() for bar in strongest.patches] == [3.0, 2.0]
    assert "channel of position, at lag 0 ms" in texts(figure)


def test_channels_of_a_filter_are_named():
    figure = connectivity.draw_stimulus_filters(np.arange(3.0), np.ones((1, 3, 2)), "position", np.array(["a"]))
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["0", "1"]
    assert "lag of position (ms)" in texts(figure) and "future" not in texts(figure)


def test_significance_controls_false_discoveries():
    p_value = np.full((4, 4), 0.5)
    p_value[0, 1], p_value[1, 2], p_value[2, 3], p_value[0, 0] = 0.004, 0.008, 0.03, 1e-9
    # 12 pairs: thresholds 0.0042, 0.0083, 0.0125: two pass; the diagonal never counts
    np.testing.assert_array_equal(np.argwhere(figures.significant(p_value)), [[0, 1], [1, 2]])


def test_time_rescaling_counts_neurons_inside_their_own_band():
    quantile = np.linspace(0, 1, 101)
    shifted = np.clip(quantile + 0.1, 0, 1)
    cdf = np.stack([quantile, shifted, shifted])
    statistic = np.array([0.0, 0.1, 0.1])
    figure = statistics.draw_time_rescaling(quantile, cdf, statistic, np.array([100, 100, 400]))  # bands 0.136, 0.136, 0.068
    assert "2 of 3 neurons inside" in texts(figure)
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [0, 0.1 / 0.136, 0.1 / 0.068], atol=1e-9)


@pytest.mark.parametrize("power", [0.15, 4.0])
def test_the_legend_of_time_rescaling_leaves_the_curves_alone(power):
    quantile = np.linspace(0, 1, 201)
    figure = statistics.draw_time_rescaling(quantile, np.tile(quantile**power, (3, 1)), np.full(3, 0.5), np.full(3, 50))
    left = figure.axes[0]
    figure.draw_without_rendering()
    points = left.transData.transform(np.column_stack([quantile, quantile**power]))
    assert left.get_legend().get_window_extent().count_contains(points) == 0


def test_time_rescaling_takes_the_distance_over_all_intervals():
    """A curve that lies on the diagonal at the quantiles drawn can leave its band between them."""
    quantile = np.linspace(0, 1, 3)
    figure = statistics.draw_time_rescaling(quantile, quantile[None], np.array([0.2]), np.array([100]))
    assert "0 of 1 neuron inside" in texts(figure)


@pytest.mark.parametrize("factor, is_shared", [(3, True), (100, False)])
def test_rates_share_a_scale_unless_one_would_vanish(factor, is_shared):
    time, neuron = np.array([0.5]), np.array([0])
    figure = raster.draw_raster({"data": (time, neuron, np.array([1])), "free": (time, neuron, np.array([factor]))}, 1, 1.0)
    tops = [figure.axes[row].get_ylim()[1] for row in (1, 3)]
    assert (tops[0] == tops[1]) == is_shared and tops[0] >= 200  # one spike in a window of 5 ms


def test_raster_of_few_neurons_names_them():
    trains = np.array([0.1, 0.2, 0.3]), np.array([2, 2, 0]), np.ones(3, int)
    figure = raster.draw_raster({"data": trains}, 3, 1.0, neuron_ids=np.array(["a", "b", "c"]))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b", "a", "c"]


@pytest.mark.parametrize(
    "limits, labels",
    [((150, 1300), ["200", "500", "1000"]), ((0.8, 9), ["1", "2", "5"]), ((1, 1e4), None)],
    ids=["hundreds", "ones", "wide"],
)
def test_logarithmic_ticks_are_few_and_plain(limits, labels):
    figure, axes = style.new_figure()
    axes[0, 0].set(xscale="log", xlim=limits)
    style.log_ticks(axes[0, 0].xaxis)
    figure.draw_without_rendering()
    inside = [tick for tick in axes[0, 0].xaxis.get_major_ticks() if limits[0] <= tick.get_loc() <= limits[1]]
    assert not any(tick.label1.get_text() for tick in axes[0, 0].xaxis.get_minor_ticks())
    assert [tick.label1.get_text() for tick in inside] == labels if labels else all("10^" in tick.label1.get_text() for tick in inside)


def test_neuron_scores_are_sorted_and_counted():
    figure = statistics.draw_neuron_scores(np.array([0.3, -0.1, np.nan, 0.5]), None, np.array(list("abcd")), np.array([10, 20, 0, 30]))
    assert "2 of 3 above the mean-rate model" in texts(figure)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [-0.1, 0.3, 0.5]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b", "a", "d"]


def test_psth_shows_the_clearest_neurons_with_ceiling():
    rng = np.random.default_rng(0)
    recorded = rng.random((2, 30, 6)) * np.array([1, 50, 2, 3, 60, 4])
    figure = psth.draw_psth(
        np.arange(30) * 10.0,
        recorded,
        recorded,
        conditions=np.array(["a", "b"]),
        neuron_ids=np.array(list("uvwxyz")),
        n_trials=np.array([5, 7]),
        ceiling=np.ones(6),
    )
    assert len(figure.axes) == 8
    assert figure.axes[0].get_ylabel().startswith("neuron y\nr = 1.00 of 1.00")
    assert "b, 7 trials" in texts(figure) and "time in trial (ms)" in texts(figure)
    top = figure.axes[0].get_ylim()[1]
    assert top > recorded[..., 4].max()  # no peak is cut off


def test_long_psth_is_drawn_in_means_and_seconds():
    recorded = np.arange(1500.0).reshape(1, 1500, 1)
    figure = psth.draw_psth(
        10.0 + 20.0 * np.arange(1500),
        recorded,
        recorded**2,
        conditions=np.array([""]),
        neuron_ids=np.array(["u"]),
        n_trials=np.array([5]),
    )
    model = figure.axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(model[1], [0.3, np.mean(np.arange(10, 20) ** 2)])  # bins 10 to 19 lie from 0.2 to 0.4 s
    assert len(model) == 150 and "time in trial (s), means of 200 ms" in texts(figure)
    r = np.corrcoef(np.arange(1500.0), np.arange(1500.0) ** 2)[0, 1]
    assert figure.axes[0].get_ylabel() == f"neuron u\nr = {r:.2f}\nHz"


def test_selection_shows_candidates_in_order_and_fills_what_was_taken():
    score = np.array([0.1, 0.3, 0.2, 0.35])
    folds = score[:, None] + np.array([-0.01, 0.01])
    figure = learning_curve.draw_selection(
        ["history", "history", "ridge", "ridge"], list("abcd"), score, folds, np.array([0, 1, 0, 1], bool)
    )
    axes = figure.axes[0]
    taken = [line.get_xydata().tolist() for line in axes.lines if line.get_color() == style.MODEL]
    assert taken == [[[0.3, 1.0], [0.35, 3.0]]]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first candidate at the top
    assert [text.get_text() for text in axes.texts] == ["history", "ridge"]


def test_couplings_of_populations_stand_at_post_and_pre_with_their_errors():
    coupling = np.array([[1.0, -2.0], [3.0, 0.0]])
    figure = populations.draw_population_coupling(coupling, np.array([[0.1, np.nan], [0.2, 0.0]]), ["E", "I"])
    written = {(round(text.get_position()[0]), round(text.get_position()[1])): text.get_text() for text in figure.axes[0].texts}
    assert written == {(0, 0): "1\n± 0.1", (1, 0): "-2\n± ?", (0, 1): "3\n± 0.2", (1, 1): "0"}


def test_dwell_times_are_drawn_as_the_share_that_lasts_longer():
    figure = populations.draw_dwell_times(np.array([3.0, 1.0]), np.zeros(0))
    (line,) = figure.axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), [[0, 1], [1, 0.5], [3, 0]])


def test_a_run_folder_gives_every_figure(run_folder):
    drawings = figures.available(RunFiles.read(run_folder))
    assert set(drawings) == {name for name in figures.NAMES if not name.endswith("-NAME")} | {"filters-speed", "targets-readout"}


def test_a_signal_or_loss_named_like_a_path_is_drawn_into_one_file(run_folder, tmp_path):
    run, renamed = tmp_path / "run", {"targets/readout/": "targets/a/b/", "filter/speed": "filter/c/d"}
    shutil.copytree(run_folder, run)
    with np.load(run / "statistics.npz") as stored:
        arrays = dict(stored)
    for old, new in renamed.items():
        arrays = {name.replace(old, new): value for name, value in arrays.items()}
    np.savez(run / "statistics.npz", **arrays)
    drawn = figures.draw(run, ["targets-a/b", "filters-c/d"], tmp_path / "drawn")
    assert [path.name for path in drawn] == ["targets-a-b.svg", "filters-c-d.svg"]
    _embedded(figures.available(RunFiles.read(run))["filters-c/d"], tmp_path)
    assert (tmp_path / "filters-c-d.svg").exists()


def test_figures_are_equal_each_time(run_folder, tmp_path):
    one, two = (figures.draw(run_folder, ["coupling"], tmp_path / name) for name in ("a", "b"))
    for a, b in zip(one, two, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_figure_settings_do_not_leak():
    before = dict(matplotlib.rcParams)
    raster.draw_raster({"data": (np.array([0.5]), np.array([0]), np.array([1]))}, 1, 1.0)
    assert dict(matplotlib.rcParams) == before


def test_figures_need_no_display_and_no_pyplot(run_folder, tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from fitspike.plotting.figures import draw;"
        f"draw(Path({str(run_folder)!r}), ['raster'], Path({str(tmp_path)!r}), 'png');"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_and_missing_figures_are_named(run_folder, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'raster'"):
        figures.draw(run_folder, ["rastre"], tmp_path)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "status.json").write_text('{"state": "running"}')
    with pytest.raises(InvalidInputError, match="does not hold the numbers for psth"):
        figures.draw(bare, ["psth"], tmp_path)
    with pytest.raises(RunFolderError, match="no run folder"):
        figures.draw(tmp_path, [], tmp_path)


def test_plot_command_draws_lists_and_reports(run_folder, tmp_path):
    runner = CliRunner()
    result = runner.invoke(cli, ["plot", str(run_folder), "--what", "coupling,raster", "--out", str(tmp_path), "--format", "png", "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert [path.rpartition("/")[2] for path in printed["figures"]] == ["coupling.png", "raster.png"] and printed["report"] is None
    assert (tmp_path / "coupling.png").read_bytes()[:4] == b"\x89PNG"
    listed = runner.invoke(cli, ["plot", str(run_folder), "--list"])
    assert "learning-curve: The course of the fit." in listed.stdout
    wrong = runner.invoke(cli, ["plot", str(run_folder), "--what", "rastre"])
    assert wrong.exit_code != 0


def test_run_folder_of_a_newer_format_is_not_drawn(tmp_path):
    (tmp_path / "status.json").write_text('{"format_version": 99}')
    with pytest.raises(RunFolderError, match="format version 99"):
        figures.draw(tmp_path, [], tmp_path / "figures")


def test_gradient_norms_of_loss_terms_share_one_graph():
    step = np.arange(10.0, 60.0, 10.0)
    terms = {"loss": np.ones(5), "gradient_norm/nll": np.full(5, 0.01), "gradient_norm/psth": np.full(5, 1.0)}
    figure = draw_learning_curve(step, terms)
    visible = [one for one in figure.axes if one.axison]
    assert len(visible) == 2
    lines = {line.get_label(): line.get_ydata()[0] for line in visible[1].lines}
    assert lines == {"nll": 0.01, "psth": 1.0} and visible[1].get_yscale() == "log"


def test_learning_curve_of_a_task_names_units_and_counts_its_points():
    figure = draw_learning_curve(np.array([20]), {"hidden_rate_hz": np.array([9.5]), "readout_nmse": np.array([0.7])}, np.array([3.0]))
    found = texts(figure)
    assert "rate of hidden neurons (Hz)" in found and "squared error / variance" in found and "1 point in 3.0 s" in found
