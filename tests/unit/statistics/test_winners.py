"""Which population leads: hand-made rates whose leads and switches are known."""

import numpy as np
import pytest

from fitspike.errors import InvalidInputError
from fitspike.statistics.winners import box_smoothed, dwell_times_s, switch_bins, winning_population


def test_lead_passes_only_when_the_margin_is_crossed():
    difference = np.array([0, 3, 5.9, 6, 2, -5.9, 0, -6, -1, 5, 7, 7.0])
    rates = np.stack([20 + difference / 2, 20 - difference / 2], axis=1)
    winner = winning_population(rates, 0.1, smoothing_s=0.1, margin_hz=6.0)
    np.testing.assert_array_equal(winner, [-1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(switch_bins(winner), [7, 10])  # the first lead is no switch
    np.testing.assert_allclose(dwell_times_s(winner, 0.1), [0.3])  # leads that the ends cut are left out
    np.testing.assert_array_equal(winning_population(rates[:, ::-1], 0.1, smoothing_s=0.1), np.where(winner < 0, -1, 1 - winner))


def test_of_three_populations_the_highest_takes_over_from_whoever_leads():
    rates = np.array([[10, 2, 3], [10, 15, 3], [10, 15, 20], [10, 15, 22], [25, 15, 22], [29, 15, 22.0]])
    winner = winning_population(rates, 0.01, smoothing_s=0.01, margin_hz=6.0)
    # Population 1 leads 0 by 5 only, then 2 leads 0 by 10; at last 0 is 3 and then 7 above 2.
    np.testing.assert_array_equal(winner, [0, 0, 2, 2, 2, 0])


def test_smoothing_is_a_centred_box_and_ignores_short_bursts():
    step = np.repeat([0.0, 1.0], 50)
    smooth = box_smoothed(step[:, None], 20)[:, 0]
    np.testing.assert_allclose(smooth[39:61], np.clip(np.arange(-1, 21) / 20, 0, 1), atol=1e-12)
    np.testing.assert_allclose(box_smoothed(np.arange(10.0)[:, None], 5)[:, 0], [1, 1.5, 2, 3, 4, 5, 6, 7, 7.5, 8])
    rates = np.tile([20.0, 5.0], (200, 1))
    rates[100:104] = [5.0, 20.0]  # 16 ms of the reverse, in a box of 80 ms
    assert (winning_population(rates, 0.004) == 0).all()
    rates[100:120] = [5.0, 20.0]
    np.testing.assert_array_equal(winning_population(rates, 0.004)[[99, 110, 130]], [0, 1, 0])


def test_nobody_leads_where_rates_are_close_and_bad_calls_are_refused():
    winner = winning_population(np.full((10, 2), 5.0), 0.004)
    assert (winner == -1).all() and switch_bins(winner).size == 0 and dwell_times_s(winner, 0.004).size == 0
    with pytest.raises(InvalidInputError, match="at least two populations"):
        winning_population(np.ones((10, 1)), 0.004)
    with pytest.raises(InvalidInputError, match="must be positive"):
        winning_population(np.ones((10, 2)), 0.004, margin_hz=0.0)
