"""Tests for proposal.py on histories of many tasks, of few trials, of many, and of odd ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mlflow_meta import SearchSpace, propose
from mlflow_meta.columns import frame_of
from mlflow_meta.models import ZOO
from mlflow_meta.proposal import choose_batch, tried_on

SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
        "model": {"type": "categorical", "choices": ["mlp", "tree", "svm"]},
        "layers": {"type": "int", "low": 1, "high": 6, "when": {"model": ["mlp"]}},
        "batch": {"type": "categorical", "choices": [16, 32, 64], "log": True},
    }
)


def task(name: str, n: int, *, best: float = -3.0, unit: float = 1.0) -> pd.DataFrame:
    """`n` random trials: a bowl in log10(lr) around `best`, and trees are better than others."""
    configs = SPACE.sample(n, np.random.default_rng(list(name.encode())))
    values = [(np.log10(c["lr"]) - best) ** 2 + 2.0 * (c["model"] != "tree") for c in configs]
    return frame_of(configs, SPACE.names).assign(task=name, value=np.array(values) * unit)


def tasks(n_tasks: int, n: int, **options: float) -> pd.DataFrame:
    many = [task(f"t{i}", n, **options) for i in range(n_tasks)]
    return pd.concat(many, ignore_index=True)


def new(
    trials: pd.DataFrame, n: int = 6, space: SearchSpace = SPACE, seed: int = 0
) -> pd.DataFrame:
    """Proposals for a task without a trial; all that is promised of them is checked."""
    configs = propose(trials, space, task="new", n=n, rng=np.random.default_rng(seed))
    keys = {space.key(config) for config in configs}
    tried = {space.key(space.active(config)) for config in tried_on(trials, "new")}
    assert len(keys) == len(configs) and not keys & tried
    assert all(space.complete(config, np.random.default_rng(0)) == config for config in configs)
    return pd.DataFrame(configs)


def far_off(found: pd.DataFrame) -> float:
    """How many decades the best proposed learning rate is from the best."""
    return float(np.abs(np.log10(found["lr"]) + 3.0).min())


strange: dict[str, Callable[[], pd.DataFrame]] = {
    "three runs of each of five tasks": lambda: tasks(5, 3),
    "more tasks than are used, with four runs each": lambda: tasks(60, 4),
    "one task of many runs": lambda: tasks(1, 60),
    "outliers of a million": lambda: tasks(4, 20).assign(
        value=lambda t: t["value"].where(t.index % 7 > 0, 1e6)
    ),
    "units a billion times apart": lambda: pd.concat([tasks(2, 15), task("x", 15, unit=1e9)]),
    "constant tasks among others": lambda: pd.concat(
        [tasks(3, 15), task("flat", 40).assign(value=7.0), task("b", 30).assign(value=0.0)]
    ),
    "values on a coarse grid": lambda: tasks(4, 20).assign(value=lambda t: t["value"].round()),
    "one category only": lambda: tasks(4, 40).query("`params.model` == 'tree'"),
    "tasks that do not share their parameters": lambda: pd.concat(
        [
            task("lr alone", 20)[["task", "value", "params.lr"]],
            task("no lr", 20).drop(columns="params.lr"),
            task("more", 20).assign(**{"params.dropout": 0.5}),
        ]
    ),
    "runs in a corner of the space": lambda: tasks(3, 80).query("`params.lr` < 1e-3"),
    "one configuration again and again": lambda: pd.concat([task("x", 1)] * 9 + [task("y", 9)]),
}


@pytest.mark.parametrize("own", [0, 1, 5])
@pytest.mark.parametrize("what", strange)
def test_a_new_task_gets_what_it_was_promised_whatever_the_others_are(what: str, own: int) -> None:
    trials = pd.concat([strange[what](), task("new", own)], ignore_index=True)
    found = new(trials)
    assert len(found) == 6
    pd.testing.assert_frame_equal(found, new(trials))


@pytest.mark.parametrize(
    "what",
    ["three runs of each of five tasks", "outliers of a million", "constant tasks among others"],
)
def test_oddities_do_not_hide_what_the_others_teach(what: str) -> None:
    found = new(strange[what]())
    assert far_off(found) < 0.5
    assert (found["model"] == "tree").any()


def test_the_first_batch_serves_both_kinds_of_task() -> None:
    low, high = ([task(f"{best}{i}", 30, best=best) for i in range(3)] for best in (-4.5, -1.0))
    found = np.log10(new(pd.concat([*low, *high], ignore_index=True))["lr"])
    assert np.abs(found + 4.5).min() < 0.6
    assert np.abs(found + 1.0).min() < 0.6


def test_own_trials_tell_which_of_the_others_the_task_is_like() -> None:
    others = [task(f"{best}{i}", 30, best=best) for best in (-4.5, -1.0) for i in range(3)]
    trials = pd.concat([*others, task("new", 8, best=-1.0)], ignore_index=True)
    found = np.log10(new(trials)["lr"])
    assert np.abs(found + 1.0).mean() < 1.2


def test_a_saved_champion_proposes_the_same() -> None:
    trials = pd.concat([tasks(3, 15), task("new", 6)], ignore_index=True)
    model, loaded = ZOO["transfer"](), ZOO["transfer"]()
    model.fit(trials, SPACE)
    loaded.load(model.save())
    for name in ("new", "t1", "never seen"):
        options = {"task": name, "n": 4, "tried": tried_on(trials, name)}
        once, again = (
            choose_batch(m, SPACE, trials, rng=np.random.default_rng(2), **options)[0]
            for m in (model, loaded)
        )
        assert once == again


def test_a_small_space_is_proposed_whole_and_each_once() -> None:
    small = SearchSpace.from_dict(
        {
            "a": {"type": "int", "low": 1, "high": 3},
            "b": {"type": "categorical", "choices": ["x", "y"]},
        }
    )
    rows = frame_of(small.enumerate() * 2, small.names)
    trials = rows.assign(task=["p"] * 6 + ["q"] * 6, value=rows["params.a"] * 1.0)
    assert len(new(trials, 50, small)) == 6


@pytest.mark.parametrize("n_own", [0, 40])
def test_thirty_parameters_and_no_two_alike(n_own: int) -> None:
    wide = SearchSpace.from_dict(
        {f"x{i}": {"type": "float", "low": 0.0, "high": 1.0} for i in range(30)}
    )

    def drawn(name: str, n: int) -> pd.DataFrame:
        configs = wide.sample(n, np.random.default_rng(list(name.encode())))
        frame = frame_of(configs, wide.names)
        return frame.assign(task=name, value=(frame["params.x0"] - 0.2).abs())

    trials = pd.concat([*(drawn(n, 40) for n in "abc"), drawn("new", n_own)], ignore_index=True)
    found = new(trials, 10, wide)
    assert found["x0"].mean() < 0.4
    assert found.drop_duplicates().shape == (10, 30)


@pytest.mark.slow
@pytest.mark.parametrize("n_tasks", [1, 5, 400])
def test_ten_thousand_runs_are_learned_from_without_a_cube_of_them(n_tasks: int) -> None:
    trials = tasks(n_tasks, 10_000 // n_tasks)
    configs = propose(trials, SPACE, task="t0", n=5, rng=np.random.default_rng(0))
    assert far_off(pd.DataFrame(configs)) < 0.2
    assert len(configs) == 5
