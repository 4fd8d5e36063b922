"""Tests for backtest/: no value is seen before its time, and every number is told a second way."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from scipy import stats

from mlflow_meta import SearchSpace
from mlflow_meta.backtest import backtest, chance, most_promising, replay
from mlflow_meta.cli import main
from mlflow_meta.columns import frame_of
from mlflow_meta.errors import NothingToLearn

SPACE = SearchSpace.from_dict(
    {
        "x": {"type": "float", "low": 0.0, "high": 1.0},
        "kind": {"type": "categorical", "choices": ["a", "b"]},
    }
)


def history(n: int = 20, *, seed: int = 0, tasks: tuple[str, ...] = ("t",)) -> pd.DataFrame:
    """Runs of a smooth function with little noise; those of several tasks take turns."""
    rng = np.random.default_rng(seed)
    configs = SPACE.sample(n * len(tasks), rng)
    value = [(c["x"] - 0.3) ** 2 + 0.2 * (c["kind"] == "b") for c in configs]
    names = [tasks[i % len(tasks)] for i in range(len(configs))]
    noise = rng.normal(0, 0.005, len(configs))
    return frame_of(configs, SPACE.names).assign(task=names, value=value + noise)


def in_order(known: pd.DataFrame, pool: pd.DataFrame, n: int) -> list[int]:
    return list(range(n))


def test_the_random_course_is_the_mean_over_all_orders() -> None:
    values = np.array([3.0, 1.0, 4.0, 1.5, 9.0])
    courses = np.minimum.accumulate(list(itertools.permutations(values)), axis=1)
    np.testing.assert_allclose(chance.expected_course(values), courses.mean(axis=0))
    for level in (0.1, 0.5, 0.9):
        expected = np.quantile(courses, level, axis=0, method="inverted_cdf")
        np.testing.assert_array_equal(chance.course_quantile(values, level), expected)


@pytest.mark.parametrize("n_good", [1, 2, 5])
def test_the_random_wait_is_the_mean_over_all_orders(n_good: int) -> None:
    waits = [1 + min(order.index(i) for i in range(n_good))
             for order in itertools.permutations(range(5))]  # fmt: skip
    assert chance.expected_wait(5, n_good) == pytest.approx(np.mean(waits))


def test_the_way_as_it_was_run_is_the_best_so_far_of_the_pool() -> None:
    trials = history(12)
    found = backtest(trials, SPACE, task="t", rng=np.random.default_rng(0))
    pool = trials["value"].to_list()[5:]
    assert found.n_start == 5
    expected = [min(pool[:n]) for n in range(1, 8)]
    assert found.ways["as run"].course.tolist() == expected
    near = min(pool) + 0.05 * (np.median(pool) - min(pool))
    assert found.ways["as run"].needed == 1 + next(i for i, v in enumerate(expected) if v <= near)
    assert found.share(np.array([min(pool), np.median(pool)])).tolist() == [0.0, 1.0]
    assert found.is_anecdote
    assert all(way.course[-1] == min(pool) for way in found.ways.values())


def test_no_way_is_handed_a_value_before_it_has_chosen_the_run() -> None:
    trials = history(14, tasks=("t", "other"))
    own = trials.index[trials["task"] == "t"].to_list()
    asked = []

    def probe(known: pd.DataFrame, pool: pd.DataFrame, n: int) -> list[int]:
        assert "value" not in pool
        assert not set(known.index) & set(pool.index)
        mine = known.index[known["task"] == "t"]
        others = known.index[known["task"] == "other"]
        assert others.max() < own[len(mine)], "others that were started later are not known"
        asked.append(len(mine))
        return list(range(len(pool)))[::-1][:n]

    order = replay(trials, "t", probe, n_start=5)
    assert sorted(order) == list(range(9))
    assert asked == [5, 10]


def test_our_choice_does_not_depend_on_what_it_has_not_seen() -> None:
    trials = history(20)
    order = replay(trials, "t", most_promising(SPACE, "t", np.random.default_rng(0)), n_start=10)
    unseen = [10 + i for i in order[5:]]
    trials.loc[unseen, "value"] = np.nan  # would be refused if it were looked at
    asked: list[list[int]] = []
    ours = most_promising(SPACE, "t", np.random.default_rng(0))

    def once(known: pd.DataFrame, pool: pd.DataFrame, n: int) -> list[int]:
        asked.append(ours(known, pool, n) if len(asked) == 0 else in_order(known, pool, n))
        return asked[-1]

    replay(trials, "t", once, n_start=10)
    assert asked[0] == order[:5]


def test_where_nothing_can_be_learned_the_choice_covers_the_pool() -> None:
    trials = history(20)
    ours = most_promising(SPACE, "t", np.random.default_rng(0))
    known, pool = trials.iloc[:5], trials.iloc[5:].drop(columns="value")

    def left(chosen: int) -> float:
        """How far the pool lies from the nearest run, were this one chosen too."""
        x = trials["params.x"].to_numpy(float)
        is_b = (trials["params.kind"] == "b").to_numpy(float)
        away = np.sqrt((x[:, None] - x) ** 2 + 2 * (is_b[:, None] != is_b))
        return float(away[5:][:, [*range(5), 5 + chosen]].min(axis=1).mean())

    assert ours(known, pool, 1) == [int(np.argmin([left(i) for i in range(15)]))]
    assert len(set(ours(known, pool, 4))) == 4


@pytest.mark.slow
def test_ours_beats_random_on_a_function_that_can_be_learned() -> None:
    gains = []
    for seed in range(8):
        trials = history(24, seed=seed)
        order = replay(
            trials, "t", most_promising(SPACE, "t", np.random.default_rng(seed)), n_start=8
        )
        pool = trials["value"].to_numpy()[8:]
        course = np.minimum.accumulate(pool[order])
        gains.append(chance.expected_course(pool)[4] - course[4])
    assert stats.ttest_1samp(gains, 0.0, alternative="greater").pvalue < 0.01


def test_intervals_cover_about_what_they_say() -> None:
    found = backtest(history(40), SPACE, task="t", rng=np.random.default_rng(0))
    for held in found.coverage:
        assert held.n == 32
        assert held.error == pytest.approx(np.sqrt(held.level * (1 - held.level) / 32))
        assert held.share > held.level - 4 * held.error


def test_too_few_runs_and_equal_ones_are_refused_with_the_next_step() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(NothingToLearn, match=r"has 8 finished runs .* Train 2 more"):
        backtest(history(8), SPACE, task="t", rng=rng)
    with pytest.raises(NothingToLearn, match="equally good"):
        backtest(history(12).assign(value=1.0), SPACE, task="t", rng=rng)


def test_the_way_of_tpe_goes_through_the_whole_pool() -> None:
    pytest.importorskip("optuna")
    from mlflow_meta.backtest.tpe import tpe

    order = replay(history(20), "t", tpe(SPACE, "t", np.random.default_rng(0)), n_start=5)
    assert sorted(order) == list(range(15))


def test_the_command_says_what_was_saved_and_writes_nothing(
    filled_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", filled_uri)
    picture = f"{tmp_path}/regret.png"
    assert CliRunner().invoke(main, ["harvest"]).exit_code == 0
    ids = [e.experiment_id for e in client.search_experiments()]
    before = len(client.search_runs(ids))
    asked = ["backtest", "-e", "sweep-a", "--metric", "val_loss"]
    shown = CliRunner().invoke(main, [*asked, "--out", picture])
    assert shown.exit_code == 0, shown.output
    assert "runs further" in shown.stdout
    assert "To come within 5% of the best, ours needed" in shown.stdout
    assert "Next: mlflow-meta train --metric val_loss" in shown.stderr
    with open(picture, "rb") as file:
        assert file.read(4) == b"\x89PNG"
    answer = json.loads(CliRunner().invoke(main, [*asked, "--json"]).stdout)
    assert (answer["n_start"], answer["n_pool"]) == (5, 19)
    assert {"ours", "as run", "random"} <= {way["name"] for way in answer["ways"]}
    assert len(client.search_runs(ids)) == before
    unknown = CliRunner().invoke(main, ["backtest", "-e", "nowhere", "--metric", "val_loss"])
    assert (unknown.exit_code, unknown.stdout) == (1, "")
