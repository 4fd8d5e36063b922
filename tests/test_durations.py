"""Tests for models/durations.py and effort.py: how long runs take, and what fits into a time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlflow_meta import SearchSpace, propose
from mlflow_meta.columns import frame_of
from mlflow_meta.effort import Effort, Limits
from mlflow_meta.errors import Exhausted, TooLittle
from mlflow_meta.models import ZOO
from mlflow_meta.models.durations import BEYOND, Durations
from mlflow_meta.models.signal import Signal
from mlflow_meta.proposal import choose_batch, in_context, tried_on

SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "epochs": {"type": "int", "low": 1, "high": 100, "log": True},
    }
)


def trained(task: str, n: int, seed: int, *, gpu: str = "T4", base_s: float = 3.0) -> pd.DataFrame:
    """Runs that take `base_s` an epoch, a tenth of it on an A100; more epochs gain a little."""
    rng = np.random.default_rng(seed)
    configs = SPACE.sample(n, rng)
    frame = frame_of(configs, SPACE.names)
    epochs = frame["params.epochs"].to_numpy(float)
    value = (np.log10(frame["params.lr"].to_numpy(float)) + 2) ** 2 + 0.3 / np.sqrt(epochs)
    seconds = base_s * epochs * (0.1 if gpu == "A100" else 1.0) * rng.lognormal(0, 0.05, n)
    return frame.assign(task=task, value=value, duration_s=seconds, **{"hardware.gpu_model": gpu})


def rows(gpu: str, task: str = "a", n: int = 200) -> pd.DataFrame:
    configs = SPACE.sample(n, np.random.default_rng(99))
    return in_context(configs, SPACE, task, {"hardware.gpu_model": gpu})


def error(said: np.ndarray, true: np.ndarray) -> float:
    """Median absolute percentage error."""
    return float(np.median(np.abs(said - true) / true))


def test_durations_are_told_to_a_tenth_where_the_mean_is_off_by_more_than_half() -> None:
    runs = trained("a", 40, 0)
    asked = rows("T4")
    true = 3.0 * asked["params.epochs"].to_numpy(float)
    assert error(Durations.learn(runs, SPACE).seconds(asked), true) < 0.1
    assert error(np.full(len(true), runs["duration_s"].mean()), true) > 0.5


def test_a_new_task_is_told_from_the_others_what_makes_a_run_long() -> None:
    runs = pd.concat([trained("a", 40, 0), trained("b", 40, 1, base_s=5.0)], ignore_index=True)
    asked = rows("T4", task="new")
    said = Durations.learn(runs, SPACE).seconds(asked)
    order = np.argsort(np.argsort(said))
    assert np.corrcoef(order, np.argsort(np.argsort(asked["params.epochs"])))[0, 1] > 0.95


def test_what_a_gpu_changes_is_told_from_tasks_that_ran_on_both() -> None:
    runs = pd.concat([trained("a", 30, 0), trained("a", 30, 1, gpu="A100")], ignore_index=True)
    durations = Durations.learn(runs, SPACE)
    true = 3.0 * rows("T4")["params.epochs"].to_numpy(float)
    assert error(durations.seconds(rows("T4")), true) < 0.15
    assert error(durations.seconds(rows("A100")), 0.1 * true) < 0.15


def test_a_gpu_that_only_one_task_ran_on_gets_no_credit_for_that_tasks_data() -> None:
    runs = pd.concat(
        [trained("a", 30, 0), trained("b", 30, 1, gpu="A100", base_s=300.0)], ignore_index=True
    )
    durations = Durations.learn(runs, SPACE)
    np.testing.assert_allclose(durations.seconds(rows("A100")), durations.seconds(rows("T4")))


def test_intervals_hold_what_they_say_and_nothing_is_far_beyond_what_was_seen() -> None:
    runs = trained("a", 60, 0)
    durations = Durations.learn(runs, SPACE)
    fresh = trained("a", 300, 7)
    low, high = durations.interval(fresh, 0.8)
    inside = (low <= fresh["duration_s"]) & (fresh["duration_s"] <= high)
    assert 0.7 <= inside.mean() <= 1.0
    longest = durations.seconds(rows("T4").assign(**{"params.epochs": 10**9}))
    assert longest.max() <= BEYOND * runs["duration_s"].max() * 1.001


def test_too_few_timed_runs_are_told_by_their_number() -> None:
    runs = trained("a", 20, 0)
    runs.loc[5:, "duration_s"] = np.nan
    with pytest.raises(TooLittle, match="Only 5 runs say how long they took"):
        Durations.learn(runs, SPACE)
    with pytest.raises(TooLittle, match="Only 0 runs"):
        Durations.learn(runs.drop(columns="duration_s"), SPACE)


@pytest.mark.parametrize("kind", ["transfer", "linear"])
def test_a_batch_takes_no_longer_than_its_budget_nor_any_run_than_its_limit(kind: str) -> None:
    runs = trained("a", 40, 0)
    model = ZOO[kind]()
    model.learn(runs, SPACE)
    durations = Durations.learn(runs, SPACE)
    limits = Limits(budget_s=200.0, longest_s=60.0)
    configs, _ = choose_batch(
        model, SPACE, runs, task="a", n=20, tried=tried_on(runs, "a"),
        rng=np.random.default_rng(0), effort=Effort(limits=limits, durations=durations),
    )  # fmt: skip
    seconds = durations.seconds(in_context(configs, SPACE, "a", {"hardware.gpu_model": "T4"}))
    assert len(configs) >= 3
    assert seconds.max() <= 60.0
    assert seconds.sum() <= 200.0


def test_a_time_that_nothing_fits_into_says_the_shortest() -> None:
    runs = trained("a", 40, 0)
    model = ZOO["transfer"]()
    model.learn(runs, SPACE)
    effort = Effort(limits=Limits(longest_s=0.01), durations=Durations.learn(runs, SPACE))
    with pytest.raises(Exhausted, match=r"at most 10 ms: the shortest of \d+ .* takes"):
        choose_batch(
            model, SPACE, runs, task="a", n=3, tried=[], rng=np.random.default_rng(0),
            effort=effort,
        )  # fmt: skip


def test_a_proposal_keeps_within_a_quarter_of_what_it_would_take_without_a_budget() -> None:
    runs = trained("a", 30, 0)
    durations = Durations.learn(runs, SPACE)

    def seconds(budget_s: float | None) -> float:
        rng = np.random.default_rng(0)
        found = propose(runs, SPACE, task="a", n=5, rng=rng, budget_s=budget_s)
        assert found
        context = {"hardware.gpu_model": "T4"}
        return float(durations.seconds(in_context(found, SPACE, "a", context)).sum())

    free = seconds(None)
    assert seconds(free / 4) <= free / 4


def test_per_hour_what_is_soon_done_comes_before_what_takes_long_and_gains_no_more() -> None:
    runs = trained("a", 40, 0)
    runs["value"] -= 0.3 / np.sqrt(runs["params.epochs"].to_numpy(float))  # epochs gain nothing
    model = ZOO["transfer"]()
    model.learn(runs, SPACE)
    durations = Durations.learn(runs, SPACE)

    def seconds(*, is_per_hour: bool) -> float:
        effort = Effort(limits=Limits(is_per_hour=is_per_hour), durations=durations)
        configs, _ = choose_batch(
            model, SPACE, runs, task="a", n=5, tried=tried_on(runs, "a"),
            rng=np.random.default_rng(0), effort=effort,
        )  # fmt: skip
        return float(durations.seconds(in_context(configs, SPACE, "a", {})).mean())

    assert seconds(is_per_hour=True) < 0.5 * seconds(is_per_hour=False)


@pytest.mark.parametrize("seconds", [0.0, -1.0, np.nan, np.inf])
def test_a_limit_must_be_a_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="budget_s"):
        Limits(budget_s=seconds)


def test_a_model_that_can_not_tell_good_from_bad_keeps_to_limits_of_time_all_the_same() -> None:
    runs = trained("a", 40, 0)
    model = ZOO["transfer"]()
    model.learn(runs, SPACE)
    model.signal = Signal(p_value=0.9, z=-1.0, n=len(runs))
    assert not model.has_signal
    durations = Durations.learn(runs, SPACE)
    effort = Effort(limits=Limits(budget_s=100.0, longest_s=60.0), durations=durations)
    configs, _ = choose_batch(
        model, SPACE, runs, task="a", n=20, tried=tried_on(runs, "a"),
        rng=np.random.default_rng(0), effort=effort,
    )  # fmt: skip
    seconds = durations.seconds(in_context(configs, SPACE, "a", {"hardware.gpu_model": "T4"}))
    assert len(configs) >= 2
    assert seconds.max() <= 60.0
    assert seconds.sum() <= 100.0


def test_a_budget_with_too_few_runs_to_learn_from_is_refused_and_not_forgotten() -> None:
    with pytest.raises(TooLittle, match="Only 5 runs say how long"):
        propose(
            trained("a", 5, 0), SPACE, task="a", n=3, rng=np.random.default_rng(0), budget_s=60.0
        )


def test_runs_that_all_took_equally_long_are_told_as_that() -> None:
    with pytest.raises(TooLittle, match="All 20 runs whose duration is known took equally long"):
        Durations.learn(trained("a", 20, 0).assign(duration_s=10.0), SPACE)
