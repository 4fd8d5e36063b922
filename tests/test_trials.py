import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_meta.trials import At, Direction, Objective, Searched, Suggestion


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_the_smallest_signed_metric_is_the_best_one(metrics: list[float]) -> None:
    for direction, best in ((Direction.MINIMIZE, min), (Direction.MAXIMIZE, max)):
        assert min(metrics, key=lambda m, sign=direction.sign: sign * m) == best(metrics)


def test_a_direction_is_what_it_spells() -> None:
    assert Direction("minimize") is Direction.MINIMIZE
    assert Direction.MAXIMIZE.value == "maximize"


def test_an_objective_needs_the_name_of_a_metric() -> None:
    with pytest.raises(ValueError, match="needs the name of a metric"):
        Objective(metric="", direction=Direction.MINIMIZE)


def suggestion(**changes: float) -> Suggestion:
    values = {"mean": 0.5, "std": 0.1, "low": 0.4, "high": 0.7, **changes}
    return Suggestion(rank=int(values.pop("rank", 1)), config={"lr": 0.1}, **values)


@pytest.mark.parametrize("rank", [0, -1])
def test_ranks_begin_at_1(rank: int) -> None:
    with pytest.raises(ValueError, match=rf"`rank >= 1` must hold, but got {rank}"):
        suggestion(rank=rank)


@pytest.mark.parametrize("changes", [{"low": 0.6}, {"high": 0.45}, {"mean": float("nan")}])
def test_an_interval_holds_its_mean(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="`low <= mean <= high` must hold, but suggestion 1 has"):
        suggestion(**changes)


def test_what_travels_can_not_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        suggestion().rank = 2  # type: ignore[misc]


@pytest.mark.parametrize("aliases", [("rmse",), ("val_rmse", "val_rmse")])
def test_the_spellings_of_a_metric_differ(aliases: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="spellings of a metric must differ"):
        Objective(metric="rmse", direction=Direction.MINIMIZE, aliases=aliases)


def test_an_alias_needs_a_name_and_a_curve_is_read_at_its_last_or_its_best_value() -> None:
    with pytest.raises(ValueError, match="needs the name of a metric"):
        Objective(metric="rmse", direction=Direction.MINIMIZE, aliases=("",))
    with pytest.raises(ValueError, match=r"`at` must be one of .*but got 'first'"):
        Objective(metric="rmse", direction=Direction.MINIMIZE, at="first")  # type: ignore[arg-type]


@given(
    st.lists(st.text(min_size=1), min_size=1, unique=True),
    st.sampled_from(Direction),
    st.sampled_from(["last", "best"]),
)
def test_an_objective_survives_json(names: list[str], direction: Direction, at: At) -> None:
    objective = Objective(metric=names[0], direction=direction, aliases=tuple(names[1:]), at=at)
    assert Objective.from_dict(json.loads(json.dumps(objective.to_dict()))) == objective


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            {"n_assessed": 4 * 10**15, "bound": 0.25},
            "Assessed 4.0e15 configurations in 0.2 s: none is predicted better than suggestion 1.",
        ),
        (
            {"n_assessed": 10**15, "bound": 0.246},
            "Assessed 1.0e15 of 4.0e15 configurations in 0.2 s: none is predicted better than 0.25 "
            "by more than 0.004.",
        ),
        (
            {"n_assessed": 700, "bound": -math.inf, "is_interrupted": True},
            "Predicted 700 of 4.0e15 configurations in 0.2 s, stopped by Ctrl-C; nothing is "
            "proven.",
        ),
        (
            {
                "n_configs": math.inf,
                "n_assessed": 5784,
                "bound": -math.inf,
                "engine": "local",
            },
            "Predicted 5,784 configurations of a continuous space in 0.2 s, broad to narrow: this "
            "model has no formula by which the others could be ruled out.",
        ),
        (
            {
                "n_configs": 700,
                "n_assessed": 700,
                "bound": -math.inf,
                "engine": "local",
                "seconds": 0.004,
            },
            "Predicted all 700 configurations in 4 ms.",
        ),
    ],
)
def test_a_search_is_told_in_a_sentence(found: dict, said: str) -> None:
    given = {"n_configs": 4 * 10**15, "best": 0.25, "engine": "branch", "seconds": 0.2}
    assert Searched(**{**given, **found}).sentence == said
