"""Tests for dataset.py: the frame, its types, its file, and what is learned from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_meta.columns import config_of, frame_of, type_column
from mlflow_meta.dataset import MetaDataset, direction_of
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.trials import Direction, Objective

INF_OF_MLFLOW = 1.7976931348623157e308
MINIMIZE, MAXIMIZE = Direction.MINIMIZE, Direction.MAXIMIZE


def runs(n: int = 4, **columns: Any) -> pd.DataFrame:
    start = pd.Timestamp("2026-01-01", tz="UTC").as_unit("ms")  # as fine as MLflow's own times
    return pd.DataFrame(
        {
            "run_id": [f"run{i}" for i in range(n)],
            "experiment_id": "1",
            "experiment": "digits",
            "status": "FINISHED",
            "start_time": [start + pd.Timedelta(hours=n - i).as_unit("ms") for i in range(n)],
            "duration_s": 1.5,
            "task": "digits / loss",
            **columns,
        }
    )


# --- types -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "dtype", "values"),
    [
        (["1", "-2", "30"], "Int64", [1, -2, 30]),
        (["1", None, "None"], "Int64", [1, pd.NA, pd.NA]),
        (["1", "0.5"], "float64", [1.0, 0.5]),
        (["1e-05", "nan", ""], "float64", [1e-05, np.nan, np.nan]),
        (["True", "False", None], "boolean", [True, False, pd.NA]),
        (["True", "None"], "boolean", [True, pd.NA]),
        (["True", "1"], "string", ["True", "1"]),
        (["true", "false"], "string", ["true", "false"]),
        (["adam", "None", None], "string", ["adam", "None", pd.NA]),
        (["1", "auto"], "string", ["1", "auto"]),
        (["007", "008"], "string", ["007", "008"]),
        (["-01", "2"], "string", ["-01", "2"]),
        (["0", "0.0"], "float64", [0.0, 0.0]),
        (["1_000", "2"], "string", ["1_000", "2"]),
        (["0x10", "2"], "string", ["0x10", "2"]),
        (["٣", "2"], "string", ["٣", "2"]),
        (["inf", "1"], "string", ["inf", "1"]),
        (["1e400", "1"], "string", ["1e400", "1"]),
        ([str(2**63 - 1), "1"], "Int64", [2**63 - 1, 1]),
        ([str(2**63), "1"], "float64", [2.0**63, 1.0]),
        (["9" * 5000, "1"], "Int64", [pd.NA, 1]),
        (["None", "nan"], "string", ["None", "nan"]),
        ([None, None], "string", [pd.NA, pd.NA]),
        ([], "string", []),
    ],
)
def test_a_column_has_the_narrowest_type_that_holds_every_text(
    texts: list[str | None], dtype: str, values: list[Any]
) -> None:
    typed = type_column(texts)
    assert str(typed.dtype) == dtype
    pd.testing.assert_series_equal(typed, pd.Series(values, dtype=dtype), check_names=False)


SPELT = {
    "int": st.integers(-(2**63) + 1, 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "text": st.text().filter(lambda text: text not in ("", "None")),
}


@pytest.mark.parametrize("kind", SPELT)
@given(data=st.data())
def test_a_typed_value_is_spelt_as_it_was_logged(kind: str, data: st.DataObject) -> None:
    logged = data.draw(st.lists(SPELT[kind].map(str), min_size=1, max_size=8))
    typed = type_column([*logged, None]).iloc[:-1]
    if kind == "text" and not pd.api.types.is_string_dtype(typed):
        return  # all of these texts happen to be numbers
    configs = [config_of({"params.p": value}) for value in typed]
    assert [str(config["p"]) for config in configs] == logged


@given(st.lists(st.one_of(st.none(), st.text(max_size=6), st.sampled_from(["1", "0.5", "True"]))))
def test_no_text_breaks_the_typing_and_none_is_invented(texts: list[str | None]) -> None:
    typed = type_column(texts)
    assert len(typed) == len(texts)
    assert all(pd.isna(value) for value, text in zip(typed, texts, strict=True) if text is None)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["a", "b", "c"]),
            st.one_of(st.booleans(), st.text(min_size=1)),
            max_size=3,
        ),
        max_size=5,
    )
)
def test_configs_survive_a_frame(configs: list[dict[str, Any]]) -> None:
    frame = frame_of(configs, ["a", "b", "c"])
    assert [config_of(row) for row in frame.to_dict("records")] == configs


def test_a_config_has_the_set_params_alone_as_plain_values() -> None:
    row = {"task": "a", "params.n": np.int64(3), "params.x": np.float64(0.5), "params.gone": None}
    config = config_of({**row, "params.flag": np.bool_(True), "params.nan": np.nan})
    assert config == {"n": 3, "x": 0.5, "flag": True}
    assert [type(value) for value in config.values()] == [int, float, bool]


# --- direction and objective -----------------------------------------------------------------


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


def dataset(**changes: Any) -> MetaDataset:
    metrics = {
        "metrics.loss": [0.3, 0.1, np.nan, 0.2],
        "metrics.foo": [1.0, np.nan, np.nan, np.nan],
    }
    return MetaDataset(**{"frame": runs(**metrics), **changes})


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


def test_without_either_the_candidates_are_named() -> None:
    with pytest.raises(NothingToLearn, match=r"Pass --metric.*: loss \(3\), foo \(1\)\."):
        dataset().objective(None)
    two = {**stated("loss"), "wine": Objective(metric="foo", direction=MINIMIZE)}
    with pytest.raises(NothingToLearn, match="Which metric should be learned"):
        dataset(primary=two).objective(None)


def test_a_direction_that_can_not_be_told_is_asked_for() -> None:
    with pytest.raises(NothingToLearn, match=r"low or a high 'foo' better.*--direction minimize"):
        dataset().objective("foo")


# --- trials ----------------------------------------------------------------------------------


def test_values_are_minimised_and_rows_stand_in_the_order_of_their_start() -> None:
    data = dataset()
    down = data.trials(Objective(metric="loss", direction=MINIMIZE))
    up = data.trials(Objective(metric="loss", direction=MAXIMIZE))
    assert list(down["run_id"]) == ["run3", "run1", "run0"]
    assert list(down["value"]) == [0.2, 0.1, 0.3]
    assert list(up["value"]) == [-0.2, -0.1, -0.3]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, INF_OF_MLFLOW, -INF_OF_MLFLOW])
def test_a_value_that_is_not_finite_is_no_trial(bad: float) -> None:
    data = MetaDataset(frame=runs(**{"metrics.loss": [0.3, bad, 0.1, bad]}))
    trials = data.trials(Objective(metric="loss", direction=MINIMIZE))
    assert sorted(trials["value"]) == [0.1, 0.3]
    assert data.metrics() == {"loss": 2}


def test_trials_keep_params_and_context_that_are_set_and_nothing_else() -> None:
    columns = {
        "metrics.loss": [0.3, 0.1, np.nan, 0.2],
        "metrics.time": 3.0,
        "params.lr": [0.1, 0.2, 0.3, 0.4],
        "params.old": [None, None, 5, None],
        "hardware.cpus": 2,
        "dataset.rows": 100,
        "tags.team": "a",
    }
    trials = MetaDataset(frame=runs(**columns)).trials(Objective(metric="loss", direction=MINIMIZE))
    assert list(trials) == [
        *["run_id", "experiment", "task", "value"],
        *["params.lr", "hardware.cpus", "dataset.rows", "tags.team"],
    ]
    assert list(trials.index) == [0, 1, 2]


@pytest.mark.parametrize("metric", ["acc", "empty"])
def test_a_metric_that_no_run_has_names_those_that_there_are(metric: str) -> None:
    data = MetaDataset(frame=runs(**{"metrics.loss": 1.0, "metrics.empty": np.nan}))
    with pytest.raises(NothingToLearn, match=rf"has the metric '{metric}'\..*: loss \(4\)"):
        data.trials(Objective(metric=metric, direction=MAXIMIZE))


def test_metrics_are_counted_most_first() -> None:
    assert list(dataset().metrics().items()) == [("loss", 3), ("foo", 1)]


# --- the whole -------------------------------------------------------------------------------


def test_the_file_keeps_the_frame_with_its_types_and_all_beside_it() -> None:
    frame = runs(
        **{
            "params.n": pd.array([1, None, 3, 4], dtype="Int64"),
            "params.x": [0.1, np.nan, 1e-300, 4.0],
            "params.flag": pd.array([True, None, False, True], dtype="boolean"),
            "params.opt": pd.array(["adam", None, "None", "ü\n"], dtype="string"),
            "metrics.loss": [0.3, 0.1, np.nan, INF_OF_MLFLOW],
        }
    )
    before = MetaDataset(
        frame=frame,
        primary={"digits": Objective(metric="loss", direction=MAXIMIZE)},
        quarantined={"no finite metric": 3},
    )
    after = MetaDataset.from_parquet(before.to_parquet())
    pd.testing.assert_frame_equal(after.frame, frame)
    assert (after.primary, after.quarantined) == (before.primary, before.quarantined)


def test_a_part_of_a_frame_survives_its_file_too() -> None:
    part = MetaDataset(frame=runs().iloc[2:])
    again = MetaDataset.from_parquet(part.to_parquet()).frame
    pd.testing.assert_frame_equal(again, part.frame.reset_index(drop=True))


def test_an_empty_meta_dataset_survives_its_file() -> None:
    assert len(MetaDataset.from_parquet(MetaDataset(frame=runs().iloc[:0]).to_parquet())) == 0


def test_a_frame_without_its_columns_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs the columns \['duration_s', 'task'\]"):
        MetaDataset(frame=runs().drop(columns=["task", "duration_s"]))


def test_a_part_has_the_runs_and_the_objectives_of_its_experiments() -> None:
    frame = runs(experiment=["digits", "wine", "digits", "iris"])
    primary = {name: Objective(metric="loss", direction=MINIMIZE) for name in ("digits", "wine")}
    data = MetaDataset(frame=frame, primary=primary, quarantined={"odd": 1})
    part = data.only(["wine", "iris"])
    assert list(part.frame["run_id"]) == ["run1", "run3"]
    assert list(part.primary) == ["wine"]
    assert data.only([]) is data
    with pytest.raises(
        NothingToLearn, match=r"no run of the experiment 'x'; it has digits, iris, w"
    ):
        data.only(["wine", "x"])


def test_tasks_stand_in_the_order_of_their_first_run() -> None:
    assert MetaDataset(frame=runs(task=["b", "a", "b", "c"])).tasks == ["b", "a", "c"]


def test_experiments_that_disagree_on_a_direction_are_not_decided_between() -> None:
    primary = {
        "wine": Objective(metric="loss", direction=Direction.MINIMIZE),
        "iris": Objective(metric="loss", direction=Direction.MAXIMIZE),
    }
    with pytest.raises(NothingToLearn, match="wine says minimize, iris says maximize"):
        dataset(primary=primary).objective("loss")
    chosen = dataset(primary=primary).objective("loss", Direction.MAXIMIZE)
    assert chosen.direction is Direction.MAXIMIZE


def test_the_odd_printed_object_among_numbers_does_not_make_them_texts() -> None:
    texts = [*(str(i) for i in range(30)), "0 int\n1 float"]
    typed = type_column(texts)
    assert str(typed.dtype) == "Int64"
    assert list(typed[:30]) == list(range(30))
    assert typed.isna()[30]
    assert str(type_column(["1", "2", "sqrt"]).dtype) == "string"
    half = [*(str(i) for i in range(30)), *["0 int\n1 float"] * 30]
    assert str(type_column(half).dtype) == "Int64"
    assert str(type_column(["0 int\n1 float"] * 3).dtype) == "string"
