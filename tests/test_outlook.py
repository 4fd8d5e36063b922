"""Tests for outlook: what is said of running curves, on simulated ones and on broken ones."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_meta.errors import TooLittle
from mlflow_meta.outlook import MIN_CURVES, Curve, Outlook, Outlooks, Standing
from mlflow_meta.outlook.rest import Rest
from mlflow_meta.trials import At


def simulated(rng: np.random.Generator, n: int, length: int = 40) -> list[Curve]:
    """Curves that fall to ends of their own, each at its own pace, with noise."""
    steps = np.arange(length)
    end, height = rng.lognormal(-1, 0.5, n), rng.lognormal(0, 0.5, n)
    pace = rng.uniform(3, 20, n)
    noise = 0.01 * rng.standard_normal((n, length))
    values = end[:, None] + height[:, None] * np.exp(-steps / pace[:, None]) + noise
    return [Curve.of(steps, row) for row in values]


def until(curve: Curve, k: int) -> Curve:
    return Curve(curve.steps[:k], curve.values[:k])


def test_left_out_predictions_are_those_of_a_regression_without_the_curve() -> None:
    rng = np.random.default_rng(0)
    x, ends = rng.normal(size=(30, 3)), rng.normal(size=30)
    rest = Rest.learn(x, ends, 1e-6)
    z = np.column_stack([np.ones(30), (x - x.mean(0)) / x.std(0)])
    penalty = np.diag([1e-6, 1, 1, 1])
    for i in (0, 7, 29):
        others = np.delete(np.arange(30), i)
        a, b = z[others], (ends - x[:, 0])[others]
        left_out = x[i, 0] + z[i] @ np.linalg.solve(a.T @ a + penalty, a.T @ b)
        assert rest.left_out[i] == pytest.approx(left_out)


def test_of_runs_that_end_well_no_more_than_is_guaranteed_are_said_not_to_beat_their_own_end() -> (
    None
):
    rng = np.random.default_rng(1)
    n_wrong = n_said = n = 0
    for _ in range(8):
        learned = Outlooks.learn(simulated(rng, 60))
        fresh = simulated(rng, 90)
        better_half = np.quantile([c.value("last") for c in fresh], 1 / 2)
        for curve in fresh:
            # As if the incumbent were just a little worse than where it ends.
            end = curve.value("last")
            looks = [until(curve, look.step + 1) for look in learned.looks]
            if end <= better_half:
                told = [learned.of(c, end + 1e-9).standing for c in looks]
                n, n_wrong = n + 1, n_wrong + (Standing.WILL_NOT in told)
            n_said += learned.of(looks[-1], 0.4 * better_half).standing is Standing.WILL_NOT
    assert n >= 240
    assert learned.level == pytest.approx(1 / 31)  # 30 curves are the better half of 60
    assert n_wrong / n <= learned.level
    assert n_said > 300  # and yet much is said


def test_a_chance_to_beat_a_value_is_the_share_that_does() -> None:
    rng = np.random.default_rng(2)
    learned = Outlooks.learn(simulated(rng, 200))
    fresh = simulated(rng, 400)
    goal = float(np.quantile([c.value("last") for c in fresh], 0.3))
    told = [learned.of(until(c, 10), goal) for c in fresh]
    open_ = [(o.chance, c.value("last") < goal) for o, c in zip(told, fresh, strict=True)]
    chance, beats = np.array(open_).T
    assert abs(chance.mean() - beats.mean()) < 0.05
    for low, high in ((0.0, 0.2), (0.2, 0.8), (0.8, 1.0)):
        among = (low <= chance) & (chance <= high)
        if among.sum() > 30:
            assert abs(chance[among].mean() - beats[among].mean()) < 0.15


values = st.lists(
    st.floats(-1e6, 1e6, allow_nan=False) | st.sampled_from([math.nan, math.inf, -math.inf]),
    min_size=1,
    max_size=60,
)


@functools.cache
def of_35(at: At) -> Outlooks:
    return Outlooks.learn(simulated(np.random.default_rng(0), 35), at)


@settings(deadline=None, max_examples=25)
@given(values, st.integers(1, 1000), st.sampled_from(["last", "best"]), st.integers(0, 9))
def test_what_has_beaten_the_incumbent_is_never_said_not_to(
    logged: list[float], stride: int, at: At, seed: int
) -> None:
    rng, learned = np.random.default_rng(seed), of_35(at)
    if not np.isfinite(logged).any():
        with pytest.raises(ValueError, match="as many values as steps, and one at least"):
            Curve.of(np.arange(len(logged)), logged)
        return
    curve = Curve.of(np.arange(len(logged)) * stride, logged)
    told = learned.of(curve, float(curve.values.min()) + 1e-3)
    assert told.standing is Standing.BEATS
    said = learned.of(curve, float(rng.lognormal()))
    assert math.isnan(said.chance) or 0 <= said.chance <= 1
    assert not said.lowest > said.expected


def test_nothing_is_said_before_enough_runs_have_finished_or_where_they_end_alike() -> None:
    rng = np.random.default_rng(3)
    curves = simulated(rng, MIN_CURVES)
    assert Outlooks.learn(curves).looks
    with pytest.raises(TooLittle, match=f"{MIN_CURVES} are needed"):
        Outlooks.learn(curves[1:])
    with pytest.raises(TooLittle, match="end alike"):
        Outlooks.learn([Curve.of([0, 1], [2.0, 1.0])] * MIN_CURVES)


def test_of_a_run_that_has_hardly_begun_or_outlasts_all_others_too_little_is_known() -> None:
    learned = Outlooks.learn(simulated(np.random.default_rng(4), 35))
    unknown = Outlook(standing=Standing.UNKNOWN)
    for steps in ([0], [0, 1], [0, 1000]):
        told = learned.of(Curve.of(steps, [9.0] * len(steps)), 0.1)
        assert (told.standing, told.step) == (unknown.standing, unknown.step), steps


def test_a_curve_takes_what_was_logged_last_at_a_step_and_the_order_where_there_are_no_steps() -> (
    None
):
    curve = Curve.of([3, 1, 1, 2], [0.3, 0.1, 0.2, math.nan])
    assert (curve.steps.tolist(), curve.values.tolist()) == ([1, 3], [0.2, 0.3])
    stepless = Curve.of([0, 0, 0], [3.0, 2.0, 1.0])
    assert (stepless.steps.tolist(), stepless.value("last")) == ([0, 1, 2], 1.0)
    assert Curve.of([0, 1, 2], [3.0, 1.0, 2.0]).value("best") == 1.0
    with pytest.raises(ValueError, match="differ"):
        Curve.of([0], [1.0, 2.0])


def test_curves_with_steps_and_lengths_of_their_own_are_compared_at_the_same_steps() -> None:
    rng = np.random.default_rng(5)
    cut = [until(c, int(rng.integers(15, 41))) for c in simulated(rng, 60)]
    odd = [Curve(c.steps[:: 1 + i % 3] * 7 - 50, c.values[:: 1 + i % 3]) for i, c in enumerate(cut)]
    learned = Outlooks.learn(odd)
    bad = Curve.of(np.arange(12) * 7 - 50, np.linspace(5.0, 4.9, 12))
    assert learned.of(bad, 0.2).standing is Standing.WILL_NOT
    worse = Curve.of(np.arange(12) * 7 - 50, np.linspace(1.0, 1e9, 12))
    assert learned.of(worse, 0.2).standing is Standing.WILL_NOT  # a metric that goes up
