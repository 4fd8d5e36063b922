"""Tests for features.py: every column has a spec, and every spec says what its column holds."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_meta.columns import frame_of
from mlflow_meta.features import MAX_LEVELS, Column, Encoder, consequences
from mlflow_meta.space import SearchSpace

SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "model": {"type": "categorical", "choices": ["mlp", "tree"]},
        "batch": {"type": "categorical", "choices": [16, 64, 256], "log": True},
        "depth": {"type": "int", "low": 0, "high": 10, "when": {"model": ["tree"]}},
    }
)
N = 24


def trials(n: int = N, **context: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    model = np.array(["mlp", "tree"] * n, dtype=object)[:n]
    return pd.DataFrame(
        {
            "task": "a",
            "value": rng.random(n),
            "params.lr": 10.0 ** -rng.integers(0, 5, n),
            "params.model": model,
            "params.batch": rng.choice([16, 64, 256], n),
            "params.depth": np.where(model == "tree", rng.integers(0, 11, n), np.nan),
            **context,
        }
    )


def column(encoder: Encoder, frame: pd.DataFrame, name: str) -> np.ndarray:
    return encoder.encode(frame)[:, encoder.names.index(name)]


def test_a_number_becomes_its_position_on_its_own_scale() -> None:
    frame = trials()
    encoder = Encoder.learn(frame, SPACE)
    expected = (np.log10(frame["params.lr"]) + 4) / 4
    np.testing.assert_allclose(column(encoder, frame, "params.lr"), expected)
    batch = np.log(frame["params.batch"] / 16) / np.log(16)
    np.testing.assert_allclose(column(encoder, frame, "params.batch"), batch)


def test_what_is_not_set_lies_in_the_middle() -> None:
    frame = trials()
    depth = column(Encoder.learn(frame, SPACE), frame, "params.depth")
    assert set(depth[frame["params.model"] == "mlp"]) == {0.5}
    tree = frame["params.model"] == "tree"
    np.testing.assert_allclose(depth[tree], frame["params.depth"][tree] / 10)


def test_a_category_becomes_one_column_for_each_choice() -> None:
    frame = trials()
    encoder = Encoder.learn(frame, SPACE)
    for choice in ("mlp", "tree"):
        expected = (frame["params.model"] == choice).astype(float)
        np.testing.assert_array_equal(column(encoder, frame, f"params.model={choice}"), expected)


def test_true_and_1_and_their_texts_are_different_choices() -> None:
    space = SearchSpace.from_dict({"p": {"type": "categorical", "choices": [True, 1, "True", "x"]}})
    frame = pd.DataFrame(
        {"task": "a", "params.p": pd.Series([True, 1, "True", None], dtype=object)}
    )
    encoder = Encoder.learn(frame, space)
    np.testing.assert_array_equal(encoder.encode(frame), np.eye(4) * [[1], [1], [1], [0]])


def test_an_unconditional_param_that_is_missing_somewhere_says_where_it_is_set() -> None:
    frame = trials()
    frame.loc[::3, "params.lr"] = np.nan
    encoder = Encoder.learn(frame, SPACE)
    is_set = column(encoder, frame, "params.lr is set")
    np.testing.assert_array_equal(is_set, frame["params.lr"].notna())
    assert "params.depth is set" not in encoder.names  # its parent says so already


def test_every_column_of_x_has_its_spec() -> None:
    frame = trials(**{"hardware.gpu": ["A100", "T4", "none"] * 8, "dataset.rows": range(N)})
    frame["task"] = ["a", "b"] * 12
    encoder = Encoder.learn(frame, SPACE)
    X = encoder.encode(frame)
    assert X.shape == (N, len(encoder.columns)) == (N, len(set(encoder.names)))
    for i, spec in enumerate(encoder.columns):
        assert isinstance(spec, Column)
        assert spec.source in frame
        alone = Encoder(SPACE, (spec,), {}).encode(frame[[spec.source]])
        np.testing.assert_array_equal(alone[:, 0], X[:, i])


def test_context_numbers_are_standardised_and_logarithmic_over_decades() -> None:
    rng = np.random.default_rng(1)
    rows, cpus = 10.0 ** rng.uniform(1, 6, N), rng.uniform(1, 8, N)
    frame = trials(**{"dataset.rows": rows, "hardware.cpus": cpus})
    encoder = Encoder.learn(frame, SPACE)
    for name, expected in (("log dataset.rows", np.log(rows)), ("hardware.cpus", cpus)):
        standard = (expected - expected.mean()) / expected.std()
        np.testing.assert_allclose(column(encoder, frame, name), standard)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["A100"] * N, "is always the same"),
        ([None] * N, "is always the same"),
        ([f"host{i}" for i in range(N)], f"has {N} different texts"),
    ],
)
def test_context_that_says_nothing_is_left_out_with_a_reason(values: Any, reason: str) -> None:
    assert N > MAX_LEVELS
    encoder = Encoder.learn(trials(**{"hardware.name": values}), SPACE)
    assert encoder.left_out["hardware.name"] == reason
    assert all(spec.source != "hardware.name" for spec in encoder.columns)


def test_a_category_of_one_trial_has_no_column_of_its_own() -> None:
    gpu = ["A100"] * 12 + ["T4"] * 11 + ["H100"]
    names = Encoder.learn(trials(**{"hardware.gpu": gpu}), SPACE).names
    assert [name for name in names if name.startswith("hardware")] == [
        "hardware.gpu=A100",
        "hardware.gpu=T4",
    ]


def test_a_copy_of_an_earlier_column_or_of_its_reverse_is_dropped() -> None:
    task = ["a", "b"] * 12
    is_a = [name == "a" for name in task]
    noise = np.random.default_rng(3).normal(size=N)
    context = {
        "dataset.name": ["digits" if a else "wine" for a in is_a],
        "dataset.feature.x": is_a,
        "hardware.load": noise,
        "tags.load": noise,
    }
    frame = trials(**context).assign(task=task)
    encoder = Encoder.learn(frame, SPACE)
    # Every second trial is of task a and of model mlp: all of these say the same.
    assert [name for name in encoder.names if not name.startswith("params.")] == ["hardware.load"]
    assert encoder.left_out["dataset.feature.x=True"] == "says the same as params.model=mlp"
    assert encoder.left_out["tags.load"] == "says the same as hardware.load"
    assert encoder.left_out["task=b"] == "says the same as params.model=tree"


def test_columns_that_only_begin_like_task_are_no_features() -> None:
    frame = trials(task_note=["x", "y"] * 12, tasks=range(N))
    sources = {spec.source for spec in Encoder.learn(frame, SPACE).columns}
    assert sources.isdisjoint({"task_note", "tasks"})


@pytest.mark.parametrize(
    "frame",
    [
        trials(3)[["task"]],
        trials(3)[[]],
        trials(3).assign(task="never seen", **{"params.model": "transformer"}),
        trials(3).assign(**{"params.lr": "fast", "params.depth": None, "hardware.gpu": None}),
        trials(3).assign(**{"params.lr": np.inf, "params.batch": -5, "dataset.rows": 1e300}),
        trials(3).assign(**{"params.lr": 0.0, "dataset.rows": -1.0, "unknown": "x"}),
        trials(0),
    ],
    ids=["only task", "no column", "unknown levels", "wrong types", "huge", "no log", "no rows"],
)
def test_whatever_comes_in_finite_numbers_go_out(frame: pd.DataFrame) -> None:
    context = {"hardware.gpu": ["A100", "T4"] * 12, "dataset.rows": 10.0 ** np.arange(N)}
    encoder = Encoder.learn(trials(**context).assign(task=["a", "a", "b"] * 8), SPACE)
    X = encoder.encode(frame)
    assert X.shape == (len(frame), len(encoder.columns))
    assert np.all(np.isfinite(X)) and np.all(np.abs(X) <= 5.0)


def test_the_values_of_one_param_are_encoded_as_in_a_frame() -> None:
    space = SearchSpace.from_dict(
        {
            "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
            "size": {"type": "categorical", "choices": [16, 32, 64], "log": True},
            "kind": {"type": "categorical", "choices": ["True", True, "x"]},
        }
    )
    values: dict[str, list[Any]] = {
        "lr": [None, 1e-4, 0.5, 7, "0.1", "none", True],
        "size": [None, 16, 64.0, 40, "32", 16],
        "kind": ["True", None, True, False, 1, "x", "y"],
    }
    known = frame_of([{"lr": 0.1}, {"size": 16}], space.names).assign(task="a", value=1.0)
    encoder = Encoder.learn(known, space)
    for name, some in values.items():
        own = [j for j, c in enumerate(encoder.columns) if c.source == f"params.{name}"]
        frame = pd.DataFrame({f"params.{name}": pd.Series(some, dtype=object)})
        expected = encoder.encode(frame)[:, own]
        np.testing.assert_array_equal(encoder.encode_values(own, some), expected)
    assert any(column.kind == "set" for column in encoder.columns)


def test_an_unknown_category_is_none_of_the_known_ones() -> None:
    encoder = Encoder.learn(trials(), SPACE)
    X = encoder.encode(trials(2).assign(**{"params.model": "transformer"}))
    is_level = [spec.kind == "is" for spec in encoder.columns]
    assert X[:, is_level].sum() == 0.0


@given(
    seed=st.integers(0, 1000),
    dtype=st.sampled_from(["object", "string", "category"]),
    numbers=st.sampled_from(["Int64", "float64", "int64"]),
)
@settings(max_examples=30)
def test_an_encoder_read_from_json_gives_the_same_matrix(
    seed: int, dtype: str, numbers: str
) -> None:
    rng = np.random.default_rng(seed)
    frame = trials(
        **{
            "hardware.gpu": pd.Series(rng.choice(["A100", "T4"], N)).astype(dtype),
            "hardware.cpus": pd.Series(rng.integers(1, 99, N)).astype(numbers),
            "dataset.feature.x": pd.array(rng.choice([True, False, None], N), dtype="boolean"),
        }
    ).assign(task=rng.choice(["a", "b", "c"], N))
    encoder = Encoder.learn(frame, SPACE)
    again = Encoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again == encoder
    np.testing.assert_array_equal(again.encode(frame), encoder.encode(frame))


def test_encoding_does_not_depend_on_the_other_rows_nor_on_the_index() -> None:
    frame = pd.concat([trials(), trials()])  # its index repeats
    encoder = Encoder.learn(frame, SPACE)
    X = encoder.encode(frame)
    alone = np.vstack([encoder.encode(frame.iloc[[i]]) for i in range(len(frame))])
    np.testing.assert_array_equal(alone, X)


# --- consequences ----------------------------------------------------------------------------

SHARE = SearchSpace.from_dict(
    {
        "share": {"type": "float", "low": 0.1, "high": 1.0},
        "model": {"type": "categorical", "choices": ["mlp", "tree"]},
    }
)


def sampled(seed: int, *, noise: float = 0.0) -> pd.DataFrame:
    """Two data sets of which a param takes a share; what is logged is the rows that were used."""
    rng = np.random.default_rng(seed)
    share, task = rng.uniform(0.1, 1.0, 40), np.array(["big", "small"] * 20)
    rows = np.round(np.where(task == "big", 50_000, 150) * share * np.exp(rng.normal(0, noise, 40)))
    return pd.DataFrame(
        {
            "task": task,
            "params.share": share,
            "params.model": rng.choice(["mlp", "tree"], 40),
            "dataset.rows": rows,
            "dataset.dropped": -rows,
            "dataset.columns": np.where(task == "big", 30, 4),
            "hardware.cpus": rng.choice([2, 4, 8, 16], 40),
        }
    )


@pytest.mark.parametrize("seed", range(10))
def test_a_row_count_that_follows_a_param_is_a_consequence_and_real_context_is_not(
    seed: int,
) -> None:
    found = consequences(sampled(seed), SHARE)
    assert found == {"dataset.rows": "share", "dataset.dropped": "share"}
    encoder = Encoder.learn(sampled(seed), SHARE)
    assert encoder.left_out["dataset.rows"] == "follows from the param share"
    assert {"dataset.columns", "hardware.cpus"} <= {spec.source for spec in encoder.columns} | {
        # two data sets differ in their columns as they differ in their names
        name
        for name, reason in encoder.left_out.items()
        if reason.startswith("says the same as")
    }


def test_a_little_noise_does_not_hide_a_consequence_and_much_noise_is_none() -> None:
    assert consequences(sampled(0, noise=0.02), SHARE)["dataset.rows"] == "share"
    assert consequences(sampled(0, noise=2.0), SHARE) == {}


def test_what_contradicts_in_one_task_is_no_consequence() -> None:
    frame = sampled(0)
    small = frame["task"] == "small"
    shuffled = np.random.default_rng(0).permutation(frame.loc[small, "dataset.rows"])
    frame.loc[small, "dataset.rows"] = shuffled
    assert "dataset.rows" not in consequences(frame, SHARE)


def test_context_that_differs_only_between_tasks_follows_from_nothing() -> None:
    frame = sampled(0).assign(**{"dataset.rows": lambda f: f["task"].map({"big": 9, "small": 1})})
    assert "dataset.rows" not in consequences(frame, SHARE)


def test_three_values_of_a_param_are_too_few_to_see_what_follows() -> None:
    frame = sampled(0).assign(**{"params.share": [0.1, 0.2, 0.5, 0.5] * 10})
    frame["dataset.rows"] = frame["params.share"] * 100
    assert consequences(frame, SHARE) == {}


def test_by_task_the_task_is_a_place_and_the_rest_is_the_space_alone() -> None:
    frame = trials(**{"dataset.rows": range(N)}).assign(task=["b", "a"] * (N // 2))
    frame.loc[0, "params.lr"] = np.nan
    encoder = Encoder.by_task(frame, SPACE)
    assert (encoder.columns[0].kind, encoder.tasks) == ("place", ("b", "a"))
    assert {column.source for column in encoder.columns[1:]} == {f"params.{n}" for n in SPACE.names}
    assert "dataset.rows" in encoder.left_out
    X = encoder.encode(frame)
    assert X[:4, 0].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert encoder.encode(frame.assign(task="c"))[:, 0].tolist() == [-1.0] * N
    assert encoder.encode(frame.drop(columns="task"))[:, 0].tolist() == [-1.0] * N
    loaded = Encoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    np.testing.assert_array_equal(loaded.encode(frame), X)


def test_the_columns_of_one_category_are_one_group() -> None:
    encoder = Encoder.learn(trials(), SPACE)
    groups = dict(zip(encoder.names, encoder.groups, strict=True))
    assert groups["params.model=mlp"] == groups["params.model=tree"]
    assert len(set(groups.values())) == len({column.source for column in encoder.columns})
