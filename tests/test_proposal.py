"""Tests for proposal/: what a proposal promises on any history, and that it learns from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlflow_meta import SearchSpace, propose
from mlflow_meta.columns import frame_of
from mlflow_meta.errors import Exhausted
from mlflow_meta.models import ZOO
from mlflow_meta.proposal import choose_batch, context_of, in_context, spread_out, tried_on
from mlflow_meta.proposal.candidates import N_OTHERS, N_WORTHIEST, candidates
from mlflow_meta.search import Found, top_k
from mlflow_meta.space import Categorical
from mlflow_meta.space.params import is_active, same
from mlflow_meta.trials import Config

Objective = Callable[[Config], float]

NESTED = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "model": {"type": "categorical", "choices": ["mlp", "tree"]},
        "layers": {"type": "int", "low": 1, "high": 4, "when": {"model": ["mlp"]}},
        "depth": {"type": "categorical", "choices": [2, 4, 8], "when": {"model": ["tree"]}},
        "scale": {"type": "categorical", "choices": [False, True]},
    }
)
SMALL = SearchSpace.from_dict(
    {
        "a": {"type": "int", "low": 1, "high": 4},
        "b": {"type": "categorical", "choices": ["x", "y", "z"]},
    }
)


def nested_value(config: Config) -> float:
    return (np.log10(float(config["lr"])) + 2) ** 2 + 2.0 * (config["model"] == "mlp")


def small_value(config: Config) -> float:
    return float(config["a"]) + 5.0 * (config["b"] == "y")


def history(
    space: SearchSpace, configs: Sequence[Config], value: Objective, task: str = "a"
) -> pd.DataFrame:
    return frame_of(configs, space.names).assign(task=task, value=[value(c) for c in configs])


def nested(n: int, *, seed: int = 0, task: str = "a") -> pd.DataFrame:
    return history(NESTED, NESTED.sample(n, np.random.default_rng(seed)), nested_value, task)


def ask(trials: pd.DataFrame, space: SearchSpace = NESTED, **changes: Any) -> list[dict[str, Any]]:
    asked: dict[str, Any] = {"task": "a", "n": 4, "rng": np.random.default_rng(0), **changes}
    return propose(trials, space, **asked)


def check_proposal(
    configs: Sequence[Config], space: SearchSpace, trials: pd.DataFrame, *, n: int, task: str = "a"
) -> None:
    """All that is promised of any proposal, each told in a second way."""
    assert len(configs) == n
    keys = [space.key(config) for config in configs]
    assert len(set(keys)) == n, "all different"
    assert not set(keys) & {space.key(space.active(c)) for c in tried_on(trials, task)}, "all new"
    for config in configs:
        assert set(config) <= set(space.params), "nothing that the space does not have"
        for name, param in space.params.items():
            assert is_active(param.when, config) == (name in config), "all active, none inactive"
            value = config.get(name)
            if value is None:
                continue
            assert type(value) in (str, int, float, bool), "plain Python values"
            if isinstance(param, Categorical):
                assert any(same(value, choice) for choice in param.choices)
            else:
                assert param.low <= float(value) <= param.high


# Several oddities in one history where they do not hide each other: every line is a second.
strange = {
    "empty": nested(0),
    "empty without columns": pd.DataFrame({"task": [], "value": []}),
    "one trial": nested(1),
    "seven trials": nested(7),
    "all equally good": nested(12).assign(value=1.0),
    "a single trial of many tasks": pd.concat([nested(1, seed=i, task=f"t{i}") for i in range(12)]),
    "two tasks, with an index that repeats": pd.concat([nested(8), nested(8, seed=1, task="b")]),
    "other tasks only": pd.concat([nested(8, task="b"), nested(8, seed=1, task="c")]),
    "one config again and again": pd.concat([nested(1)] * 12).assign(value=range(12)),
    "enormous values and an outlier": nested(12).assign(value=[1e300, *range(10), -1e200]),
    "outside the space, and params that it does not have": nested(12).assign(
        **{"params.lr": 50.0, "params.layers": 99, "params.seed": range(12)}
    ),
    "below a log scale, and infinite": nested(12).assign(
        **{"params.lr": [0.0, -1.0, -np.inf] * 4, "params.layers": np.inf}
    ),
    "unknown categories, and texts for numbers": nested(12).assign(
        **{"params.model": ["transformer", "mlp"] * 6, "params.lr": ["fast", "0.1"] * 6}
    ),
    "numbers for texts, and inactive params that were logged": nested(12).assign(
        **{"params.scale": range(12), "params.depth": 4}
    ),
    "no param of the space at all": nested(12)[["task", "value"]],
    "params that are never set, and tasks that are numbers": nested(12).assign(
        **{"params.lr": None, "params.depth": np.nan, "task": [1, 2] * 6}
    ),
    "context, and columns of a harvest": nested(12).assign(
        **{
            "hardware.cpus": [2, 4] * 6,
            "hardware.gpu": ["A100", None, "T4"] * 4,
            "dataset.rows": range(12),
            "dataset.feature.x": [True, False, None, True] * 3,
            "tags.team": "blue",
            "dataset.empty": None,
            "run_id": range(12),
            "experiment": "e",
            "task_note": "x",
        }
    ),
    "types and an index of their own": nested(12)
    .convert_dtypes()
    .astype({"params.model": "category", "task": "category"})
    .set_index(pd.Index(list("ab") * 6)),
}


@pytest.mark.parametrize("what", strange)
def test_a_proposal_keeps_its_promises_whatever_the_history(what: str) -> None:
    trials = strange[what]
    before = trials.copy(deep=True)
    configs = ask(trials, n=3)
    check_proposal(configs, NESTED, trials, n=3)
    pd.testing.assert_frame_equal(trials, before)


@pytest.mark.parametrize(("n_trials", "n"), [(0, 1), (3, 60), (12, 60)])
def test_as_many_are_proposed_as_were_asked_for(n_trials: int, n: int) -> None:
    trials = nested(n_trials)
    check_proposal(ask(trials, n=n), NESTED, trials, n=n)


@pytest.mark.parametrize("trials", [nested(0), nested(9)], ids=["nothing known", "learned"])
def test_equal_generators_give_equal_proposals(trials: pd.DataFrame) -> None:
    once = ask(trials, rng=np.random.default_rng(5))
    assert once == ask(trials, rng=np.random.default_rng(5))
    assert once != ask(trials, rng=np.random.default_rng(6))


def test_it_finds_what_is_best_about_a_simple_history() -> None:
    configs = ask(nested(40), n=3)
    assert {config["model"] for config in configs} == {"tree"}
    assert np.median([float(config["lr"]) for config in configs]) == pytest.approx(0.01, rel=1.5)


@pytest.mark.parametrize("n_tried", [0, 4, 11])
def test_a_space_with_fewer_left_gives_what_is_left_and_each_once(n_tried: int) -> None:
    everything = SMALL.enumerate()
    trials = history(SMALL, everything[:n_tried], small_value)
    configs = ask(trials, SMALL, n=50)
    check_proposal(configs, SMALL, trials, n=12 - n_tried)
    # Finite and whole: tried and proposed together are all there is.
    whole = {SMALL.key(config) for config in [*everything[:n_tried], *configs]}
    assert whole == {SMALL.key(config) for config in everything}


@pytest.mark.parametrize("value", [small_value, lambda config: 1.0], ids=["learned", "constant"])
def test_a_space_with_nothing_left_is_exhausted(value: Objective) -> None:
    trials = history(SMALL, SMALL.enumerate(), value)
    with pytest.raises(Exhausted, match="All 12 configurations of the search space have been run"):
        ask(trials, SMALL)


def test_what_was_tried_on_another_task_may_be_proposed_here() -> None:
    other = history(SMALL, SMALL.enumerate(), small_value, task="b")
    check_proposal(ask(other, SMALL, n=12), SMALL, other, n=12)


def test_what_was_tried_with_other_constants_or_spelt_as_float_is_not_proposed_again() -> None:
    trials = history(SMALL, SMALL.enumerate()[:11], small_value)
    (left,) = SMALL.enumerate()[11:]
    trials = trials.astype({"params.a": float}).assign(**{"params.seed": range(11)})
    assert ask(trials, SMALL) == [left]


def test_what_was_tried_with_inactive_params_logged_is_not_proposed_again() -> None:
    space = SearchSpace.from_dict(
        {
            "model": {"type": "categorical", "choices": ["mlp", "tree"]},
            "depth": {"type": "int", "low": 1, "high": 9, "when": {"model": ["tree"]}},
        }
    )
    # A script with argparse logs its default depth also where it trains a network.
    tried = [{"model": "mlp", "depth": 3}, *({"model": "tree", "depth": d} for d in range(1, 9))]
    trials = history(space, tried, lambda config: float(config["depth"]))
    assert ask(trials, space) == [{"model": "tree", "depth": 9}]


def test_n_is_at_least_1_and_the_columns_are_there_and_finite() -> None:
    with pytest.raises(ValueError, match="`n >= 1` must hold, but got 0"):
        ask(nested(9), n=0)
    with pytest.raises(ValueError, match=r"\['value'\] is missing"):
        ask(nested(9).drop(columns="value"))
    with pytest.raises(ValueError, match="must be finite"):
        ask(nested(9).assign(value=[np.nan, *range(8)]))


def test_with_nothing_known_they_cover_the_space_better_than_by_chance() -> None:
    square = SearchSpace.from_dict(
        {name: {"type": "float", "low": 0.0, "high": 1.0} for name in ("x", "y")}
    )
    everywhere = np.random.default_rng(99).random((2000, 2))

    def mean_distance_to_the_nearest(configs: Sequence[Config]) -> float:
        points = np.array([[float(c["x"]), float(c["y"])] for c in configs])
        away = np.linalg.norm(everywhere[:, None] - points, axis=2)
        return float(away.min(axis=1).mean())

    tried: list[Config] = [{"x": 0.5, "y": 0.5}]
    covered, by_chance = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        spread = spread_out(square, 8, tried=tried, rng=rng)
        covered.append(mean_distance_to_the_nearest([*spread, *tried]))
        by_chance.append(mean_distance_to_the_nearest([*square.sample(8, rng), *tried]))
    assert np.mean(covered) < 0.85 * np.mean(by_chance)


def test_the_context_is_that_of_the_best_trial_that_sets_most_of_the_space() -> None:
    trials = pd.DataFrame(
        {
            "task": ["a", "a", "a", "b"],
            "value": [0.5, 0.3, 0.1, 0.0],
            "params.lr": [0.1, 0.2, None, 0.3],
            "params.model": ["mlp", "tree", None, "mlp"],
            "dataset.rows": [100, 200, 300, 400],
            "hardware.gpu": ["T4", None, "A100", "H100"],
        }
    )
    assert context_of(trials, NESTED, "a") == {"dataset.rows": 200}
    assert context_of(trials, NESTED, "never seen") == {}


# --- better than ------------------------------------------------------------------------------

CUBE = SearchSpace.from_dict(
    {f"x{i}": {"type": "float", "low": 0.0, "high": 1.0} for i in range(3)}
)
LOG = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-6, "high": 1.0, "log": True},
        "n": {"type": "int", "low": 1, "high": 512, "log": True},
        "drop": {"type": "float", "low": 0.0, "high": 0.9},
    }
)


def bowl(config: Config, shift: float = 0.0) -> float:
    return sum((float(config[f"x{i}"]) - 0.3 - 0.2 * i + shift) ** 2 for i in range(3))


def valley(config: Config) -> float:
    lr, n = np.log10(float(config["lr"])) + 3.0, np.log2(float(config["n"])) - 6.0
    return lr**2 + 0.3 * (lr + n / 2) ** 2 + float(config["drop"])


FUNCTIONS: dict[str, tuple[SearchSpace, Objective]] = {
    "bowl": (CUBE, bowl),
    "valley": (LOG, valley),
    "nested": (NESTED, nested_value),
}


def best_after(
    n: int, space: SearchSpace, value: Objective, *, seed: int, past: pd.DataFrame | None = None
) -> float:
    """The best of `n` trials on task "now", proposed in batches of 5 that learn from each other."""
    rng = np.random.default_rng(seed)
    now = history(space, [], value, "now")
    for _ in range(n // 5):
        known = [frame for frame in (now, past) if frame is not None and len(frame)]
        trials = pd.concat(known, ignore_index=True) if known else now
        batch = propose(trials, space, task="now", n=5, rng=rng)
        done = history(space, batch, value, "now")
        now = pd.concat([now, done], ignore_index=True) if len(now) else done
    return float(now["value"].min())


def is_lower(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """One-sided Wilcoxon test over paired seeds."""
    return bool(stats.wilcoxon(ours, theirs, alternative="less").pvalue < 0.05)


def test_a_model_without_signal_is_not_asked() -> None:
    rng = np.random.default_rng(3)
    trials = nested(30).assign(value=rng.permutation(30) * 1.0)
    model = ZOO["lightgbm"]()
    model.fit(trials, NESTED)
    model.calibration = replace(model.calibration, slope=0.0)
    tried = tried_on(trials, "a")
    options = {"task": "a", "n": 4, "tried": tried, "rng": np.random.default_rng(0)}
    chosen, searched = choose_batch(model, NESTED, trials, **options)
    assert chosen == spread_out(NESTED, 4, tried=tried, rng=np.random.default_rng(0))
    assert searched is None


@pytest.mark.parametrize("kind", ["linear", "lightgbm"])
def test_the_first_of_a_batch_is_the_best_prediction_of_all_that_is_left(kind: str) -> None:
    many = SearchSpace.from_dict(
        {name: {"type": "int", "low": 0, "high": 9} for name in ("a", "b", "c", "d")}
    )
    configs = many.sample(60, np.random.default_rng(1))
    trials = history(many, configs, lambda c: (c["a"] - 3) ** 2 + 4 * c["b"] + abs(c["c"] - c["d"]))
    model = ZOO[kind]()
    model.fit(trials, many)
    tried = tried_on(trials, "a")
    asked: dict[str, Any] = {"task": "a", "tried": tried}
    chosen, searched = choose_batch(model, many, trials, n=5, rng=np.random.default_rng(0), **asked)
    gone = {many.key(config) for config in tried}
    left = [config for config in many.enumerate() if many.key(config) not in gone]
    best = model.predict(in_context(left, many, "a", {})).mean.min()
    assert searched is not None
    assert searched.best == pytest.approx(best)
    assert searched.bound == searched.best
    assert searched.n_configs == searched.n_assessed == 10_000
    assert model.predict(in_context(chosen[:1], many, "a", {})).mean[0] == pytest.approx(best)
    check_proposal(chosen, many, trials, n=5)


def test_an_interrupted_search_gives_what_it_has_or_stays_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = SearchSpace.from_dict({f"p{i}": {"type": "int", "low": 0, "high": 9} for i in range(9)})
    trials = history(many, many.sample(60, np.random.default_rng(1)), lambda c: float(c["p0"]))
    model = ZOO["lightgbm"]()
    model.fit(trials, many)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    asked: dict[str, Any] = {"task": "a", "n": 5, "tried": [], "progress": stop}
    chosen, searched = choose_batch(model, many, trials, rng=np.random.default_rng(0), **asked)
    assert searched is not None and searched.is_interrupted
    assert len(chosen) == 1 and "stopped by Ctrl-C" in searched.sentence

    def at_once(*_: object, **__: object) -> tuple[list[Config], Any]:
        return [], replace(whole, is_interrupted=True, configs=[])

    whole = top_k(model, many, 1, context={"task": "a"}, rng=np.random.default_rng(0))
    monkeypatch.setattr("mlflow_meta.proposal.choosing.thompson", at_once)
    with pytest.raises(KeyboardInterrupt):
        choose_batch(model, many, trials, rng=np.random.default_rng(0), **asked)


def test_a_formula_over_a_space_that_is_used_up_is_told_apart() -> None:
    trials = history(SMALL, SMALL.enumerate(), small_value)
    model = ZOO["linear"]()
    model.fit(trials, SMALL)
    tried = tried_on(trials, "a")
    asked: dict[str, Any] = {"task": "a", "n": 3, "rng": np.random.default_rng(0)}
    chosen, _ = choose_batch(model, SMALL, trials, tried=tried[:-1], **asked)
    assert chosen == tried[-1:]
    with pytest.raises(Exhausted, match="All 12 configurations of the search space"):
        choose_batch(model, SMALL, trials, tried=tried, **asked)


@pytest.mark.slow
def test_twenty_proposed_trials_beat_twenty_random_ones() -> None:
    shares = []  # of the random searches that do better; 1/2 on average for one of their own kind
    for space, value in FUNCTIONS.values():
        rng = np.random.default_rng(0)
        at_random = [min(value(c) for c in space.sample(20, rng)) for _ in range(300)]
        for seed in range(4):
            ours = best_after(20, space, value, seed=seed)
            shares.append(float(np.mean(np.array(at_random) < ours)))
    assert is_lower(shares, [0.5] * len(shares)), shares


@pytest.mark.slow
def test_five_trials_are_better_where_three_other_tasks_have_shown_the_way() -> None:
    tasks = []
    for i, shift in enumerate((-0.08, 0.03, 0.1)):
        configs = CUBE.sample(20, np.random.default_rng(100 + i))
        past = history(CUBE, configs, lambda c, shift=shift: bowl(c, shift), f"past {i}")
        tasks.append(past.assign(value=past["value"] * 10.0**i))  # each in units of its own
    shifted = pd.concat(tasks, ignore_index=True)
    with_past = [best_after(5, CUBE, bowl, seed=seed, past=shifted) for seed in range(10)]
    assert is_lower(with_past, [best_after(5, CUBE, bowl, seed=seed) for seed in range(10)])


def test_a_batch_may_have_the_worthiest_past_bests_and_as_many_others_as_can_be_drawn() -> None:
    configs = [{"x": i} for i in range(2000)]
    found = Found(configs, -np.arange(2000.0), is_complete=False)
    elites = [{"x": 1234}, {"x": 3}, {"x": 5000}]  # the last was tried, and is not found
    pool = [c["x"] for c in candidates(found, elites, 10, np.random.default_rng(0))]
    assert pool[: N_WORTHIEST + 1] == [*range(N_WORTHIEST), 1234]
    assert len(set(pool)) == len(pool) == N_WORTHIEST + 1 + N_OTHERS
    assert len(candidates(found, elites, 600, np.random.default_rng(0))) == 1200
