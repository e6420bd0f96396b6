"""What a fit keeps where its free simulation runs away."""

import fitspike
from fitspike.plotting.figures import available
from fitspike.plotting.run_files import RunFiles


def test_a_simulation_that_runs_away_leaves_the_figures_of_the_data(counts_recording, steady_rate, tmp_path):
    options = {"progress": "off", "threads": 1, "score": {"co_smoothing_bins": 0, "n_bootstrap": 20}, "simulation": {"max_seconds": 3.0}}
    result = fitspike.fit(counts_recording, steady_rate(shift=9.0, n_steps=60), out=tmp_path / "run", **options)
    assert "runs away" in result.simulation["error"] and any("runs away" in note for note in result.notes)
    assert "recorded/raster_time_s" in result.statistics and "simulated/rate_hz" not in result.statistics
    assert {"raster", "intervals"} <= set(available(RunFiles.read(tmp_path / "run")))
    assert (tmp_path / "run" / "figures" / "raster.svg").is_file() and (tmp_path / "run" / "report.html").is_file()
