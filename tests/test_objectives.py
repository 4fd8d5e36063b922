"""Tests for dataset/objectives.py and metric_names.py: what to learn, and its value in each run."""

from __future__ import annotations

import re
import shlex
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_dataset import INF_OF_MLFLOW, dataset, runs

from mlflow_meta.cli import main
from mlflow_meta.dataset import MetaDataset, MetricProposal, finite
from mlflow_meta.dataset.metric_names import direction_of, groups
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.trials import Direction, Objective

MINIMIZE, MAXIMIZE = Direction.MINIMIZE, Direction.MAXIMIZE
NAN = np.nan


def logged(**metrics: Any) -> MetaDataset:
    return MetaDataset(frame=runs(**{f"metrics.{name}": v for name, v in metrics.items()}))


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("val_loss", MINIMIZE),
        ("rmse", MINIMIZE),
        ("RMSE", MINIMIZE),
        ("test/error", MINIMIZE),
        ("test accuracy", MAXIMIZE),
        ("validation-auc", MAXIMIZE),
        ("r2", MAXIMIZE),
        ("f1_score", MAXIMIZE),
        ("neg_mean_squared_error", MAXIMIZE),
        ("val_neg_log_likelihood", MINIMIZE),
        ("negative_rmse", MAXIMIZE),
        ("accuracy_loss", None),
        ("foo", None),
        ("lossy", None),
        ("", None),
    ],
)
def test_a_metrics_name_says_its_direction_or_nothing(
    metric: str, direction: Direction | None
) -> None:
    assert direction_of(metric) is direction


def stated(metric: str, direction: Direction = MAXIMIZE) -> dict[str, Objective]:
    return {"digits": Objective(metric=metric, direction=direction)}


def test_the_objective_asked_for_comes_first() -> None:
    data = dataset(primary=stated("foo"))
    assert data.objective("loss") == Objective(metric="loss", direction=MINIMIZE)
    assert data.objective("loss", MAXIMIZE) == Objective(metric="loss", direction=MAXIMIZE)


def test_else_it_is_what_the_team_has_set() -> None:
    data = dataset(primary=stated("loss", MAXIMIZE))
    assert data.objective(None) == Objective(metric="loss", direction=MAXIMIZE)
    assert data.objective("loss") == Objective(metric="loss", direction=MAXIMIZE)


def test_of_no_runs_at_all_no_metric_is_said_to_be_missing() -> None:
    with pytest.raises(NothingToLearn, match="holds no finished run with a metric"):
        MetaDataset(frame=runs()[:0]).objective("val_loss")


def test_without_either_the_candidates_are_named() -> None:
    with pytest.raises(NothingToLearn, match=r"Pass --metric.*: loss \(3\), foo \(1\)\."):
        dataset().objective(None)
    two = {**stated("loss"), "wine": Objective(metric="foo", direction=MINIMIZE)}
    with pytest.raises(NothingToLearn, match="Which metric should be learned"):
        dataset(primary=two).objective(None)


def test_a_direction_that_can_not_be_told_is_asked_for() -> None:
    with pytest.raises(NothingToLearn, match=r"low or a high 'foo' better.*--direction minimize"):
        dataset().objective("foo")


def test_experiments_that_disagree_on_a_direction_are_not_decided_between() -> None:
    primary = {
        "wine": Objective(metric="loss", direction=Direction.MINIMIZE),
        "iris": Objective(metric="loss", direction=Direction.MAXIMIZE),
    }
    with pytest.raises(NothingToLearn, match="wine says minimize, iris says maximize"):
        dataset(primary=primary).objective("loss")
    chosen = dataset(primary=primary).objective("loss", Direction.MAXIMIZE)
    assert chosen.direction is Direction.MAXIMIZE


# --- spellings -------------------------------------------------------------------------------


def test_commas_part_the_spellings_of_one_metric_and_the_first_one_names_it() -> None:
    data = logged(rmse=1.0, test_rmse=1.0)
    expected = Objective(metric="rmse", direction=MINIMIZE, aliases=("test_rmse", "val_rmse"))
    assert data.objective("rmse, test_rmse,val_rmse,rmse,") == expected
    assert data.objective(["rmse", "test_rmse", "val_rmse"]) == expected


def test_a_metric_that_was_logged_with_its_comma_is_one_metric() -> None:
    data = logged(**{"f1,macro": 1.0, "f1": 1.0})
    assert data.objective("f1,macro", MAXIMIZE).spellings == ("f1,macro",)
    assert data.objective("f1,micro", MAXIMIZE).spellings == ("f1", "micro")


def test_a_run_has_the_first_finite_value_in_the_order_of_the_spellings() -> None:
    data = logged(
        rmse=[1.0, NAN, INF_OF_MLFLOW, NAN], test_rmse=[5.0, 2.0, 3.0, NAN], val_rmse=[NAN] * 4
    )
    trials = data.trials(data.objective("rmse,test_rmse,val_rmse"))
    assert dict(zip(trials["run_id"], trials["value"], strict=True)) == {
        "run0": 1.0,
        "run1": 2.0,
        "run2": 3.0,
    }
    other = data.trials(data.objective("test_rmse,rmse"))
    assert sorted(other["value"]) == [2.0, 3.0, 5.0]
    assert data.remarks_on(data.objective("rmse,test_rmse,val_rmse")) == (
        "No run has the metric 'val_rmse'.",
        "1 runs have different values under several of the names rmse, test_rmse, val_rmse: the "
        "first that a run has counts.",
    )


values = st.one_of(st.none(), st.floats(), st.just(INF_OF_MLFLOW))


@given(st.lists(st.tuples(values, values, values), min_size=1, max_size=6))
def test_the_values_are_those_of_a_search_run_by_run(rows: list[tuple[float | None, ...]]) -> None:
    columns = {
        f"metrics.{name}": [NAN if row[i] is None else row[i] for row in rows]
        for i, name in enumerate("abc")
    }
    data = MetaDataset(frame=runs(len(rows), **columns))
    expected = {}
    for i, row in enumerate(rows):
        known = [v for v in row if v is not None and abs(v) < 1e300]
        if known:
            expected[f"run{i}"] = -known[0]
    if not expected:
        with pytest.raises(NothingToLearn, match="has the metric 'a' or 'b' or 'c'"):
            data.objective("a,b,c", MAXIMIZE)
        return
    trials = data.trials(data.objective("a,b,c", MAXIMIZE))
    assert dict(zip(trials["run_id"], trials["value"], strict=True)) == expected


def test_no_spelling_of_a_metric_was_logged() -> None:
    with pytest.raises(NothingToLearn, match=r"has the metric 'x' or 'y'\..*: loss \(3\)"):
        dataset().objective("x,y")


@pytest.mark.parametrize("direction", [None, MINIMIZE, MAXIMIZE])
def test_names_that_mean_opposite_directions_are_not_one_metric(
    direction: Direction | None,
) -> None:
    data = logged(rmse=1.0, accuracy=1.0)
    with pytest.raises(NothingToLearn, match="rmse is to minimize, accuracy is to maximize"):
        data.objective("rmse,accuracy", direction)


def test_what_the_team_says_of_a_spelling_counts_more_than_its_name() -> None:
    primary = {"digits": Objective(metric="score", direction=MINIMIZE)}
    data = MetaDataset(frame=runs(**{"metrics.rmse": 1.0, "metrics.score": 1.0}), primary=primary)
    assert data.objective("rmse,score").direction is MINIMIZE
    with pytest.raises(NothingToLearn, match="score is to maximize"):
        logged(rmse=1.0, score=1.0).objective("rmse,score")


# --- the best of a curve ---------------------------------------------------------------------


def curves(**columns: Any) -> MetaDataset:
    return MetaDataset(frame=runs(**{"metrics.loss": [3.0, 4.0, NAN, 2.0], **columns}))


def test_the_best_of_a_curve_counts_by_the_direction_and_else_the_last_value() -> None:
    data = curves(**{"min.loss": [1.0, NAN, 0.5, NAN], "max.loss": [9.0, NAN, 8.0, NAN]})
    low = data.objective("loss", at="best")
    high = data.objective("loss", MAXIMIZE, at="best")
    by_run = {o: data.trials(o).set_index("run_id")["value"].to_dict() for o in (low, high)}
    assert by_run[low] == {"run0": 1.0, "run1": 4.0, "run2": 0.5, "run3": 2.0}
    assert by_run[high] == {"run0": -9.0, "run1": -4.0, "run2": -8.0, "run3": -2.0}
    assert data.remarks_on(low) == ("No curve of 2 runs was harvested: their last value counts.",)
    assert sorted(data.trials(data.objective("loss"))["value"]) == [2.0, 3.0, 4.0]


def test_the_curve_of_a_later_spelling_does_not_come_before_an_earlier_value() -> None:
    data = curves(**{"metrics.val_loss": 7.0, "min.val_loss": 0.1})
    trials = data.trials(data.objective("loss,val_loss", at="best"))
    assert sorted(trials["value"]) == [0.1, 2.0, 3.0, 4.0]


def test_without_curves_the_best_of_them_is_refused() -> None:
    data = curves(**{"max.loss": 9.0, "metrics.val_loss": 1.0})
    with pytest.raises(NothingToLearn, match="No curve of 'loss' or 'val_loss' was harvested"):
        data.trials(data.objective("loss,val_loss", at="best"))


# --- proposals -------------------------------------------------------------------------------


def test_metrics_that_differ_by_split_separator_or_case_alone_are_one() -> None:
    names = ["RMSE", "test_rmse", "rmse-val", "eval/rmse", "cv.rmse", "train rmse", "training_RMSE"]
    others = ["rmse_log", "test", "loss", "system/rmse", "predicted_rmse"]
    others += ["std_predicted_rmse", "low_80_predicted_rmse", "mlflow_meta.rank"]
    assert set(groups([*names, *others])) == {
        ("rmse-val", "cv.rmse", "eval/rmse", "test_rmse", "RMSE"),
        ("train rmse", "training_RMSE"),
        ("rmse_log",),
        ("test",),
        ("loss",),
    }


words = st.sampled_from(["val", "test", "train", "Training", "CV", "loss", "rmse", "system", "x"])
separators = st.sampled_from(["_", "-", "/", ".", " ", "__"])
made_up = st.lists(st.tuples(words, separators), min_size=1, max_size=4).map(
    lambda parts: "".join(word + separator for word, separator in parts)
)


@given(st.lists(made_up, unique=True))
def test_every_metric_is_in_one_group_and_training_is_mixed_with_nothing(names: list[str]) -> None:
    found = groups(names)
    expected = [name for name in names if not name.startswith("system/")]
    assert sorted(name for group in found for name in group) == sorted(expected)
    held_out = re.compile(r"(?i)^(val|test|cv)[_\-/. ]+.*\w")
    training = re.compile(r"(?i)^train(ing)?[_\-/. ]+.*\w")
    for group in found:
        assert not (any(map(held_out.match, group)) and any(map(training.match, group)))


def proposed(**metrics: Any) -> tuple[str, ...]:
    return logged(**metrics).proposals()[0].spellings


def test_the_metric_that_covers_most_runs_is_proposed() -> None:
    some = [1.0, NAN, NAN, NAN]
    rest = [NAN, 1.0, 1.0, NAN]
    assert proposed(auc=[1.0, 1.0, NAN, NAN], val_rmse=some, rmse=rest) == ("val_rmse", "rmse")
    assert proposed(auc=1.0, val_rmse=some, rmse=rest) == ("auc",)
    assert proposed(auc=1.0, rmse=1.0) == ("rmse",)
    assert proposed(rmse=1.0, val_mae=1.0) == ("val_mae",)


def test_a_direction_that_is_known_quality_and_held_out_values_come_first() -> None:
    most = [1.0, 1.0, 1.0, NAN]
    assert proposed(epoch=1.0, loss=most) == ("loss",)
    assert proposed(fit_time=1.0, accuracy=most) == ("accuracy",)
    assert proposed(train_loss=1.0, val_loss=most) == ("val_loss",)
    assert proposed(quux=1.0, loss=[1.0, NAN, NAN, NAN]) == ("quux",)


def test_a_bare_name_beside_a_held_out_one_in_a_run_is_the_trainings() -> None:
    keras = logged(loss=[1.0, 1.0, NAN, 1.0], val_loss=[2.0, NAN, 2.0, NAN])
    assert {p.spellings for p in keras.proposals()} == {("val_loss",), ("loss",)}
    teams = logged(loss=[1.0, 1.0, NAN, NAN], val_loss=[NAN, NAN, 2.0, 2.0])
    assert [p.spellings for p in teams.proposals()] == [("val_loss", "loss")]


def test_without_a_metric_the_error_has_a_command_that_learns_the_proposed_one() -> None:
    frame = runs(experiment=["a", "b", "c", "d"])
    frame["metrics.test rmse"] = [1.0, NAN, NAN, NAN]
    frame["metrics.val rmse"] = [NAN, 1.0, 2.0, NAN]
    data = MetaDataset(frame=frame)
    with pytest.raises(NothingToLearn) as caught:
        data.objective(None)
    command = str(caught.value).split("`")[1]
    assert "(3 of 4 runs in 3 of 4 experiments)" in str(caught.value)
    assert command == "mlflow-meta train --metric 'val rmse,test rmse' --direction minimize"
    words = shlex.split(command)
    parsed = main.commands["train"].make_context("train", words[2:]).params
    asked = data.objective(parsed["metric"], Direction(parsed["direction"]))
    assert asked.spellings == data.proposals()[0].spellings


def test_a_proposal_of_unknown_direction_does_not_guess_one() -> None:
    (proposal,) = logged(quux=1.0).proposals()
    assert isinstance(proposal, MetricProposal)
    assert proposal.direction is None
    assert proposal.command(["my sweep"]) == "mlflow-meta train -e 'my sweep' --metric quux"
    assert MetaDataset(frame=runs()).proposals() == []


def test_experiments_that_name_several_metrics_are_told_with_a_proposal() -> None:
    primary = {
        "wine": Objective(metric="loss", direction=MINIMIZE),
        "iris": Objective(metric="foo", direction=MAXIMIZE),
    }
    with pytest.raises(NothingToLearn, match=r"name several: foo, loss.*--metric loss"):
        dataset(primary=primary).objective(None)


# --- finite ----------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.floats(), st.sampled_from([INF_OF_MLFLOW, 1e300, 9e299]))))
def test_finite_is_what_mlflow_does_not_keep_for_an_infinity(numbers: list[float]) -> None:
    expected = [bool(np.isfinite(x)) and abs(x) < 1e300 for x in numbers]
    assert list(finite(np.array(numbers, dtype=float))) == expected
    assert list(finite(pd.Series(numbers, dtype="Float64"))) == expected
