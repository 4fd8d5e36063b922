"""Tests for gate.py and promotion.py: who becomes champion, over many simulated cycles."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from mlflow_meta.gate import (
    DOUBT,
    MIN_LATER,
    Comparison,
    Judged,
    Verdict,
    compare,
    has_drifted,
)
from mlflow_meta.models import ZOO, MetaModel
from mlflow_meta.models.meta_model import scales_of
from mlflow_meta.promotion import forward, judged
from mlflow_meta.space import SearchSpace

N_CYCLES = 100
SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "depth": {"type": "int", "low": 2, "high": 12},
        "noise": {"type": "float", "low": 0.0, "high": 1.0},
    }
)
BLIND = SearchSpace.from_dict({"noise": {"type": "float", "low": 0.0, "high": 1.0}})


def trials(n: int, rng: np.random.Generator, start: int = 0) -> pd.DataFrame:
    """Runs of one task, whose value falls with the learning rate and rises with the depth."""
    lr, depth = 10 ** rng.uniform(-4, 0, n), rng.integers(2, 13, n)
    value = -np.log10(lr) + 0.3 * depth + rng.normal(0, 0.2, n)
    return pd.DataFrame(
        {
            "run_id": [f"{start + i:032x}" for i in range(n)],
            "task": "wine",
            "value": value,
            "params.lr": lr,
            "params.depth": depth,
            "params.noise": rng.uniform(0, 1, n),
        }
    )


def learned(frame: pd.DataFrame, space: SearchSpace = SPACE) -> MetaModel:
    model = ZOO["linear"]()
    model.fit(frame, space)
    return model


def cycles(champion: MetaModel, space: SearchSpace, first: pd.DataFrame) -> list[Comparison]:
    """Cycles of ten runs each; in each a challenger is trained that reads the params so."""
    rng = np.random.default_rng(1)
    known, found = first, []
    for turn in range(N_CYCLES):
        known = pd.concat([known, trials(10, rng, 1000 + 10 * turn)], ignore_index=True)
        known = known.drop(index=range(60, max(60, len(known) - 240))).reset_index(drop=True)
        later = ~known["run_id"].isin(first["run_id"]).to_numpy()
        found.append(forward(champion, learned(known, space), known, later))
    return found


@pytest.mark.slow
def test_a_worse_challenger_is_never_promoted_in_a_hundred_cycles() -> None:
    first = trials(60, np.random.default_rng(0))
    found = cycles(learned(first), BLIND, first)
    assert found[0].n == 10 and found[-1].n > 200
    assert not [comparison for comparison in found if comparison.verdict.is_promoted]
    assert max(comparison.gain for comparison in found) < -0.3


@pytest.mark.slow
def test_a_better_challenger_is_promoted_in_nearly_every_cycle() -> None:
    first = trials(60, np.random.default_rng(0))
    found = Counter(c.verdict for c in cycles(learned(first, BLIND), SPACE, first))
    assert found[Verdict.BETTER] >= 0.9 * N_CYCLES, found


def test_a_challenger_that_learned_from_shuffled_results_is_never_promoted() -> None:
    """As versions are compared that exist already: neither is learned anew."""
    rng = np.random.default_rng(2)
    first = trials(60, rng)
    champion, scales = learned(first), scales_of(trials(500, rng))
    for _ in range(N_CYCLES):
        shuffled = first.assign(value=rng.permutation(first["value"]))
        later = trials(int(rng.integers(MIN_LATER, 40)), rng, 1000)
        both = [judged(model, later, scales) for model in (champion, learned(shuffled))]
        assert not compare(*both, rng).verdict.is_promoted


def test_a_challenger_that_is_just_as_good_is_seldom_promoted() -> None:
    rng = np.random.default_rng(3)
    n_races, n = 2000, 25
    passed = 0
    for _ in range(n_races):
        a, b = (
            Judged(errors=abs(rng.normal(size=n)), inside=np.ones(n, dtype=bool)) for _ in range(2)
        )
        passed += compare(a, b, rng).verdict.is_promoted
    assert 0 < passed / n_races < 2 * DOUBT


def test_a_challenger_whose_intervals_hold_too_little_is_not_promoted() -> None:
    rng = np.random.default_rng(4)
    champion = Judged(errors=np.full(20, 2.0), inside=np.ones(20, dtype=bool))
    for n_inside, verdict in [(12, Verdict.BETTER), (9, Verdict.NOT_COVERING)]:
        challenger = Judged(errors=np.full(20, 1.0), inside=np.arange(20) < n_inside)
        assert compare(champion, challenger, rng).verdict is verdict


def test_fewer_later_runs_than_it_takes_promote_nobody() -> None:
    good, bad = (
        Judged(errors=np.full(MIN_LATER - 1, e), inside=np.ones(MIN_LATER - 1, dtype=bool))
        for e in (0.1, 5.0)
    )
    rng = np.random.default_rng(5)
    assert compare(bad, good, rng).verdict is Verdict.TOO_FEW
    none = Judged(errors=np.empty(0), inside=np.empty(0, dtype=bool))
    assert compare(none, none, rng).verdict is Verdict.TOO_FEW
    with pytest.raises(ValueError, match="the same trials"):
        compare(bad, none, rng)


def test_time_goes_forward_only_for_a_challenger() -> None:
    """One that knew what it is asked about would make no error at all."""
    rng = np.random.default_rng(6)
    known = trials(60, rng)
    known["value"] = rng.normal(size=60)  # nothing can be known of one run by the others
    later = np.arange(60) >= 40
    memory = ZOO["extra_trees"]()
    memory.learn(known, SPACE)  # without the doubt that cross-validation would teach it
    champion, scales = learned(known[~later]), scales_of(known)
    both = [judged(model, known[later], scales) for model in (champion, memory)]
    assert compare(*both, rng).gain_low > 0
    assert not forward(champion, memory, known, later).verdict.is_promoted


def test_a_champion_drifts_when_the_world_changes_and_not_when_it_stays() -> None:
    rng = np.random.default_rng(7)
    first = trials(80, rng)
    champion = learned(first)
    n_false = 0
    for _ in range(N_CYCLES):
        same = trials(30, rng, 1000)
        other = same.assign(value=-same["value"])
        scales = scales_of(pd.concat([first, same]))
        n_false += has_drifted(judged(champion, same, scales), champion.cv_rmse, rng)
        scales = scales_of(pd.concat([first, other]))
        assert has_drifted(judged(champion, other, scales), champion.cv_rmse, rng)
    assert n_false <= 0.1 * N_CYCLES
    few = judged(champion, trials(MIN_LATER - 1, rng), scales_of(first))
    assert not has_drifted(few, 0.0, rng)
