"""Tests for dataset/: the frame, its types, its file, and what is learned from it."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_meta.columns import config_of, frame_of, type_column
from mlflow_meta.dataset import MetaDataset
from mlflow_meta.dataset.meta_dataset import QUARANTINE
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.trials import Direction, Objective

INF_OF_MLFLOW = 1.7976931348623157e308
MINIMIZE, MAXIMIZE = Direction.MINIMIZE, Direction.MAXIMIZE
LOSS = Objective(metric="loss", direction=MINIMIZE)


def parquet_of(frame: pd.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.to_parquet(sink)
    return sink.getvalue()


def seconds(work: Callable[[], object]) -> float:
    """The shorter of two tries."""
    took = []
    for _ in range(2):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return min(took)


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


def dataset(**changes: Any) -> MetaDataset:
    metrics = {
        "metrics.loss": [0.3, 0.1, np.nan, 0.2],
        "metrics.foo": [1.0, np.nan, np.nan, np.nan],
    }
    return MetaDataset(**{"frame": runs(**metrics), **changes})


def left_out(reason: str, n: int, experiment: str = "digits") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run_id": [f"{reason} {i}" for i in range(n)],
            "experiment": experiment,
            "status": "FINISHED",
            "reason": reason,
            "detail": "",
        },
        columns=QUARANTINE,
        dtype="str",
    )


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
        *["run_id", "experiment", "task", "value", "duration_s"],
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
        failures=frame.iloc[:2].assign(run_id=["bad0", "bad1"], status="FAILED"),
        quarantine=pd.concat([left_out("failed", 2), left_out("no finite metric", 3, "wïne")]),
        remarks=("3 params were cut.", "The value of 'tökén' was redacted."),
    )
    after = MetaDataset.from_parquet(before.to_parquet())
    for name in ("frame", "failures", "quarantine"):
        part = getattr(before, name).reset_index(drop=True)
        pd.testing.assert_frame_equal(getattr(after, name), part)
    assert (after.primary, after.remarks) == (before.primary, before.remarks)


def test_a_reader_of_the_file_alone_tells_failures_by_their_status() -> None:
    frame = runs()
    failed = frame.iloc[:1].assign(run_id="bad", status="FAILED")
    content = MetaDataset(frame=frame, failures=failed).to_parquet()
    table = pd.read_parquet(io.BytesIO(content))
    assert list(table["status"]) == ["FINISHED"] * 4 + ["FAILED"]


@st.composite
def meta_datasets(draw: st.DrawFn) -> MetaDataset:
    n = draw(st.integers(0, 5))
    column = {
        "float64": st.one_of(st.floats(), st.just(INF_OF_MLFLOW)),
        "Int64": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        "boolean": st.one_of(st.none(), st.booleans()),
        "string": st.one_of(st.none(), st.text(max_size=5)),
    }
    frame = runs(5).iloc[:n]
    for name in draw(st.lists(st.text(max_size=3), max_size=4, unique=True)):
        kind = draw(st.sampled_from(sorted(column)))
        values = draw(st.lists(column[kind], min_size=n, max_size=n))
        frame = frame.assign(**{f"params.{name}": pd.array(values, dtype=kind)})
    reasons = draw(st.lists(st.text(max_size=4), max_size=4))
    return MetaDataset(
        frame=frame,
        failures=frame.iloc[: draw(st.integers(0, n))],
        quarantine=pd.concat([left_out("", 0), *(left_out(reason, 2) for reason in reasons)]),
        primary=draw(st.sampled_from([{}, {"digits": LOSS}])),
        remarks=tuple(draw(st.lists(st.text(max_size=5), max_size=2))),
    )


@given(meta_datasets())
@settings(max_examples=50)
def test_equal_meta_datasets_are_equal_files_however_often_they_are_read(
    data: MetaDataset,
) -> None:
    content = data.to_parquet()
    again = MetaDataset.from_parquet(content)
    assert data.to_parquet() == content
    assert again.to_parquet() == content
    pd.testing.assert_frame_equal(again.frame, data.frame)
    assert again.quarantined == dict(Counter(data.quarantine["reason"]))
    assert again.remarks == data.remarks


def test_the_order_of_objectives_does_not_change_the_file() -> None:
    primary = {"digits": LOSS, "wine": LOSS}
    turned = dict(reversed(primary.items()))
    assert dataset(primary=primary).to_parquet() == dataset(primary=turned).to_parquet()


@pytest.mark.parametrize("dtype", ["string[python]", "string[pyarrow]", "str", object])
def test_texts_give_equal_bytes_before_and_after_a_file(dtype: Any) -> None:
    data = MetaDataset(frame=runs(**{"tags.a": pd.Series(["a", None, "ü", ""], dtype=dtype)}))
    content = data.to_parquet()
    assert MetaDataset.from_parquet(content).to_parquet() == content


@pytest.mark.parametrize("content", [b"", b"no parquet", parquet_of(pd.DataFrame({"a": [1]}))])
def test_a_file_of_something_else_is_refused(content: bytes) -> None:
    with pytest.raises(NothingToLearn, match=r"must be a parquet file|holds no meta-dataset"):
        MetaDataset.from_parquet(content)


@pytest.mark.slow
def test_a_hundred_thousand_runs_are_written_and_read_in_seconds() -> None:
    n = 100_000
    rng = np.random.default_rng(0)
    start = pd.Timestamp("2026-01-01", tz="UTC").as_unit("ms")
    frame = pd.DataFrame(
        {
            "run_id": [rng.bytes(16).hex() for _ in range(n)],
            "experiment_id": "1",
            "experiment": "digits",
            "status": "FINISHED",
            "start_time": start,
            "duration_s": 1.0,
            "task": "digits",
            **{f"params.x{i}": rng.random(n) for i in range(30)},
            **{f"tags.t{i}": pd.array([f"v{i % 7}"] * n, dtype="string") for i in range(23)},
        }
    )
    data = MetaDataset(frame=frame, quarantine=left_out("odd", n))
    plain_s = seconds(lambda: frame.to_parquet(io.BytesIO(), compression="zstd"))
    ours_s = seconds(lambda: MetaDataset.from_parquet(data.to_parquet()))
    assert ours_s < max(2.0, 4 * plain_s), f"{ours_s:.2f} s, the frame alone {plain_s:.2f} s"


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
    data = MetaDataset(
        frame=frame,
        failures=frame.assign(status="FAILED"),
        quarantine=pd.concat([left_out("odd", 2), left_out("odd", 1, "wine")]),
        primary=primary,
    )
    part = data.only(["wine", "iris"])
    assert list(part.frame["run_id"]) == list(part.failures["run_id"]) == ["run1", "run3"]
    assert list(part.primary) == ["wine"]
    assert (data.quarantined, part.quarantined) == ({"odd": 3}, {"odd": 1})
    assert data.only([]) is data
    with pytest.raises(
        NothingToLearn, match=r"no run of the experiment 'x'; it has digits, iris, w"
    ):
        data.only(["wine", "x"])


def test_an_experiment_whose_runs_all_teach_nothing_says_why() -> None:
    quarantine = pd.concat([left_out("failed", 3, "wine"), left_out("odd", 1, "wine")])
    with pytest.raises(NothingToLearn, match="from the runs of the experiment 'wine': 3 failed, 1"):
        MetaDataset(frame=runs(), quarantine=quarantine).only(["wine"])


def test_reasons_are_counted_most_first() -> None:
    quarantine = pd.concat([left_out("a", 1), left_out("c", 2), left_out("b", 2)])
    data = MetaDataset(frame=runs(), quarantine=quarantine)
    assert list(data.quarantined.items()) == [("b", 2), ("c", 2), ("a", 1)]
    assert MetaDataset(frame=runs()).quarantined == {}


def test_failures_and_quarantine_of_other_columns_are_refused() -> None:
    with pytest.raises(ValueError, match=r"differ in \['params.x'\]"):
        MetaDataset(frame=runs(), failures=runs(**{"params.x": 1}))
    with pytest.raises(ValueError, match="quarantine has the columns"):
        MetaDataset(frame=runs(), quarantine=left_out("odd", 1).drop(columns="detail"))


# --- tasks -----------------------------------------------------------------------------------


def tasks(by: str, **columns: Any) -> list[str]:
    frame = runs(experiment=["a", "a", "b", "b"], **columns)
    return list(MetaDataset(frame=frame).with_tasks(by).frame["task"])


def test_tasks_are_what_was_asked_and_the_experiment_where_a_run_lacks_it() -> None:
    oslo = pd.array(["Oslo", None, "Oslo", "Bergen"], dtype="string")
    number = pd.array([1, 2, None, 1], dtype="Int64")
    assert tasks("default") == ["digits / loss"] * 4
    assert tasks("experiment") == ["a", "a", "b", "b"]
    assert tasks("tags.city", **{"tags.city": oslo}) == ["Oslo", "a", "Oslo", "Bergen"]
    assert tasks("city", **{"tags.city": oslo}) == ["Oslo", "a", "Oslo", "Bergen"]
    assert tasks("city", **{"tags.city": oslo, "params.city": number}) == ["1", "2", "b", "1"]
    named = {"dataset.name": oslo, "dataset.digest": pd.array(["x", "y", "z", None], "string")}
    assert tasks("dataset", **named) == ["Oslo x", "a", "Oslo z", "Bergen"]


def test_runs_without_what_makes_tasks_are_told_and_failures_follow_along() -> None:
    frame = runs(**{"tags.city": pd.array(["Oslo", None, None, "Oslo"], dtype="string")})
    data = MetaDataset(frame=frame, failures=frame.iloc[:2], remarks=("old",))
    by_city = data.with_tasks("city")
    assert by_city.remarks == ("old", "2 runs have no city: their task is their experiment.")
    assert list(by_city.failures["task"]) == ["Oslo", "digits"]
    assert MetaDataset.from_parquet(by_city.to_parquet()).tasks == ["Oslo", "digits"]
    assert list(data.frame["task"].unique()) == ["digits / loss"]


def test_a_param_that_makes_tasks_is_none_to_choose() -> None:
    data = MetaDataset(frame=runs(**{"params.city": list("aabb"), "params.lr": 0.1}))
    assert [c for c in data.with_tasks("city").frame if c.startswith("params.")] == ["params.lr"]
    assert (data.task_param("city"), data.task_param("default")) == ("city", None)


@pytest.mark.parametrize("by", ["town", "dataset", "status", "tags.none", ""])
def test_tasks_by_what_no_run_has_name_what_there_is(by: str) -> None:
    empty = pd.array([None] * 4, dtype="string")
    frame = runs(**{"params.city": list("aabb"), "tags.none": empty})
    with pytest.raises(NothingToLearn, match=rf"No run has '{by}'.* dataset, params\.city\."):
        MetaDataset(frame=frame).with_tasks(by)


def test_tasks_stand_in_the_order_of_their_first_run() -> None:
    assert MetaDataset(frame=runs(task=["b", "a", "b", "c"])).tasks == ["b", "a", "c"]


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
