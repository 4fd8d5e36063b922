"""Tests for calibration.py: coverage against a simulated truth."""

import numpy as np
import pytest
from crepes import ConformalRegressor
from hypothesis import given
from hypothesis import strategies as st

from mlflow_meta.calibration import LEVELS, Calibration
from mlflow_meta.metrics import coverage, rmse

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def simulated(n: int, *, seed: int, boldness: float = 1.0, std_is_off_by: float = 1.0) -> Sample:
    """Observed, and what a model says that is too bold and too sure or unsure; std varies."""
    rng = np.random.default_rng(seed)
    truth, std = rng.normal(2.0, 1.0, n), rng.uniform(0.1, 1.0, n)
    return rng.normal(truth, std), 2.0 + boldness * (truth - 2.0), std * std_is_off_by


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("std_is_off_by", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("boldness", [1.0, 3.0])
def test_intervals_cover_what_they_say_on_fresh_data(
    level: float, std_is_off_by: float, boldness: float
) -> None:
    learned = Calibration.learn(
        *simulated(2000, seed=1, boldness=boldness, std_is_off_by=std_is_off_by)
    )
    y, mean, std = simulated(20_000, seed=2, boldness=boldness, std_is_off_by=std_is_off_by)
    assert coverage(y, *learned.interval(mean, std, level)) == pytest.approx(level, abs=0.04)


@pytest.mark.parametrize("n", [50, 333])
def test_intervals_are_those_of_a_library_for_conformal_prediction(n: int) -> None:
    rng = np.random.default_rng(n)
    std, mean = rng.uniform(0.5, 2.0, n), rng.normal(size=n)
    observed = 0.3 + 0.5 * mean + std * rng.normal(size=n)
    ours = Calibration.learn(observed, mean, std)
    theirs = ConformalRegressor()
    theirs.fit(residuals=observed - ours.mean(mean), sigmas=std)
    new_mean, new_std = rng.normal(size=40), rng.uniform(0.5, 2.0, 40)
    for level in LEVELS:
        ends = theirs.predict_int(ours.mean(new_mean), sigmas=new_std, confidence=level)
        low, high = ours.interval(new_mean, new_std, level)
        np.testing.assert_allclose(np.stack([low, high], axis=1), ends)


@pytest.mark.parametrize("level", LEVELS)
def test_few_trials_give_at_least_the_coverage_they_say_on_average(level: float) -> None:
    # With fewer than level / (1 - level) scores the quantile does not exist: 12 are enough for 0.9.
    y, mean, std = simulated(2000, seed=0)
    covered = [
        coverage(y, *Calibration.learn(*simulated(12, seed=seed)).interval(mean, std, level))
        for seed in range(1, 201)
    ]
    assert np.mean(covered) == pytest.approx(level, abs=0.07)


def test_the_std_is_half_of_the_central_68_percent() -> None:
    learned = Calibration.learn(*simulated(5000, seed=0, std_is_off_by=0.2))
    _, mean, std = simulated(5000, seed=3, std_is_off_by=0.2)
    low, high = learned.interval(mean, std, 0.68)
    np.testing.assert_allclose(learned.std(std), (high - low) / 2)
    np.testing.assert_allclose(learned.std(std), std / 0.2, rtol=0.05)
    np.testing.assert_allclose(learned.mean(mean), (low + high) / 2)


def test_a_model_that_has_learned_noise_is_shrunk_to_the_average() -> None:
    rng = np.random.default_rng(0)
    y, noise = rng.normal(5.0, 1.0, 5000), rng.normal(5.0, 2.0, 5000)
    learned = Calibration.learn(y, noise, np.ones(5000))
    assert learned.slope < 0.03
    assert rmse(y, learned.mean(noise)) < 1.02 * float(y.std()) < rmse(y, noise)


def test_a_model_that_is_wrong_way_round_is_not_believed_at_all() -> None:
    y, mean, std = simulated(100, seed=0, boldness=-1.0)
    learned = Calibration.learn(y, mean, std)
    assert learned.slope == 0.0
    np.testing.assert_allclose(learned.mean(mean), y.mean())


def test_boldness_that_was_justified_is_kept_and_timidity_is_not_blown_up() -> None:
    assert Calibration.learn(*simulated(5000, seed=0)).slope == pytest.approx(1.0, abs=0.03)
    assert Calibration.learn(*simulated(5000, seed=0, boldness=0.3)).slope == 1.0
    bold = Calibration.learn(*simulated(5000, seed=0, boldness=4.0))
    assert bold.slope == pytest.approx(0.25, abs=0.02)


def test_a_model_that_always_says_the_average_has_no_slope() -> None:
    y = np.arange(10.0)
    assert Calibration.learn(y, np.full(10, y.mean()), np.ones(10)).slope == 0.0


@given(seed=st.integers(0, 1000), n=st.integers(1, 30))
def test_intervals_hold_the_mean_and_widen_with_the_level(seed: int, n: int) -> None:
    learned = Calibration.learn(*simulated(n, seed=seed))
    _, mean, std = simulated(20, seed=seed + 1)
    widths = [np.diff(learned.interval(mean, std, level), axis=0)[0] for level in LEVELS]
    assert np.all(widths[0] > 0)
    assert np.all(np.diff(widths, axis=0) >= 0)


def test_an_unknown_level_names_those_that_are_known() -> None:
    learned = Calibration.learn(*simulated(9, seed=0))
    with pytest.raises(ValueError, match=r"must be one of \[0.68, 0.8, 0.9\], but got 0.5"):
        learned.interval(np.zeros(1), np.ones(1), 0.5)
