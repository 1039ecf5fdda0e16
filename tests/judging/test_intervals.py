"""Intervals cover what they should, are the same for the same seed, and tell a real difference from none."""

import doctest

import numpy as np
import pytest

from genwright.core import Score
from genwright.judging import intervals
from genwright.judging.intervals import jackknife, mean_score, paired, paired_means, resampled, score_of_sums


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(intervals).failed == 0


def test_a_mean_gets_the_interval_of_the_normal_law():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    score = mean_score(values.tolist(), bootstrap=4000)
    error = values.std() / np.sqrt(len(values))
    assert score.value == pytest.approx(values.mean())
    assert score.low == pytest.approx(values.mean() - 1.96 * error, abs=0.03)
    assert score.high == pytest.approx(values.mean() + 1.96 * error, abs=0.03)


def test_95_percent_intervals_hold_the_truth_about_95_times_in_100():
    random = np.random.default_rng(1)
    held = 0
    for trial in range(300):
        score = mean_score(random.exponential(1.0, 80).tolist(), bootstrap=400, seed=trial)
        held += score.low <= 1.0 <= score.high
    assert 0.89 <= held / 300 <= 0.99


def test_the_same_seed_draws_the_same_and_another_differs():
    rows = np.random.default_rng(2).random((50, 3))
    first = resampled(rows, lambda s: s[:, 0] / s[:, 1], 100, seed=3)
    assert np.array_equal(first, resampled(rows, lambda s: s[:, 0] / s[:, 1], 100, seed=3))
    assert not np.array_equal(first, resampled(rows, lambda s: s[:, 0] / s[:, 1], 100, seed=4))


def test_drawing_in_blocks_keeps_the_count_and_the_size_of_each_draw(monkeypatch):
    monkeypatch.setattr(intervals, "_CELLS", 70)
    sizes = resampled(np.ones((20, 1)), lambda sums: sums[:, 0], 10, seed=0)
    assert sizes.tolist() == [20.0] * 10


def test_equal_rows_have_an_interval_of_no_width():
    score = mean_score([0.25] * 10)
    assert (score.value, score.low, score.high) == (0.25, 0.25, 0.25)


def test_no_bootstrap_means_no_interval():
    score = mean_score([0.0, 1.0], bootstrap=0)
    assert (score.low, score.high) == (None, None)


def test_pairing_finds_a_small_steady_gain_that_separate_intervals_hide():
    random = np.random.default_rng(4)
    base = random.normal(0, 10, 200)
    tuned = base + 0.5 + random.normal(0, 1, 200)
    apart = mean_score(base.tolist()), mean_score(tuned.tolist())
    assert apart[0].high > apart[1].low  # the two intervals overlap
    difference = paired(*apart)
    assert difference.is_clear
    assert difference.low < 0.5 < difference.high
    assert difference.p < 0.01


def test_pairing_rarely_finds_something_where_there_is_nothing():
    random = np.random.default_rng(5)
    alarms = 0
    for trial in range(200):
        base, tuned = random.normal(0, 1, 60), random.normal(0, 1, 60)
        difference = paired_means(base.tolist(), tuned.tolist(), bootstrap=400, seed=trial)
        alarms += difference.is_clear
        assert difference.is_clear == (difference.p < 0.05) or 0.03 < difference.p < 0.07
    assert alarms <= 20  # 5 % are expected


def test_equal_sides_differ_by_nothing_with_p_one():
    difference = paired_means([1.0, 2.0], [1.0, 2.0])
    assert (difference.value, difference.low, difference.high, difference.p) == (0.0, 0.0, 0.0, 1.0)


def test_scores_of_different_rows_are_not_paired():
    difference = paired(mean_score([1.0, 2.0]), mean_score([1.0, 2.0, 3.0]))
    assert (difference.value, difference.low, difference.p) == (0.5, None, None)


def test_a_plain_score_is_paired_when_its_value_is_the_mean_of_its_rows():
    base, tuned = Score(0.5, each=(0.0, 1.0, 0.5)), Score(0.6, each=(0.1, 1.1, 0.6))
    assert paired(base, tuned).low == pytest.approx(0.1)
    assert paired(Score(9.0, each=(0.0, 1.0, 0.5)), tuned).low is None


def test_sums_are_combined_once_and_not_averaged():
    score = score_of_sums([[1, 1], [0, 9]], lambda s: s[:, 0] / s[:, 1])
    assert score.value == 0.1  # not the mean of 1 and 0


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(6).normal(0, 1, 100)
    without = [(values.sum() - v) / 99 for v in values]
    low, high = jackknife(values.mean(), without)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std(ddof=1) / 10)
    assert jackknife(1.0, [1.0]) == (None, None)
