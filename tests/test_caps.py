"""Stores with more names or texts than anybody chose: memory stays bounded, and it is said."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd
import pytest
from measured import GB, mlflow_meta
from mlflow import MlflowClient

from mlflow_meta.features import MAX_GIVEN, Encoder
from mlflow_meta.space import infer
from mlflow_meta.space.infer import MAX_SEARCHED
from mlflow_meta.store.parse import MAX_METRICS, MAX_PARAMS, MAX_TAGS

START_MS = 1_700_000_000_000
LIMIT_BYTES = 2 * GB
TRAIN_CPU_S = 60.0  # of every thread together: some 30 s of two cores

Rows = Iterable[tuple[Any, ...]]


def fill(uri: str, n: int, params: Rows, tags: Rows, metrics: Rows) -> None:
    """`n` finished runs, the one at i with the id `run_id(i)` and the metric `loss`.

    Args:
        uri: An SQLite store.
        n: How many runs.
        params: (run, name, value).
        tags: (run, name, value).
        metrics: (run, name, value).
    """
    experiment = int(MlflowClient(uri).create_experiment("wide"))
    values = np.random.default_rng(0).uniform(size=n).tolist()
    runs = (
        (run_id(i), "r", "UNKNOWN", "ann", "FINISHED", START_MS + i, START_MS + i + 1000, "active",
         experiment)
        for i in range(n)
    )  # fmt: skip
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as tables, tables:
        tables.execute("PRAGMA synchronous=OFF")
        tables.executemany(
            "insert into runs (run_uuid, name, source_type, user_id, status, start_time, end_time, "
            "lifecycle_stage, experiment_id) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            runs,
        )
        for table, rows in (("params", params), ("tags", tags)):
            tables.executemany(
                f"insert into {table} (run_uuid, key, value) values (?, ?, ?)", by_id(rows)
            )
        losses = ((i, "loss", value) for i, value in enumerate(values))
        for rows in (losses, metrics):
            tables.executemany(
                "insert into latest_metrics (run_uuid, key, value, timestamp, step, is_nan) "
                f"values (?, ?, ?, {START_MS}, 0, 0)",
                by_id(rows),
            )


def run_id(i: int) -> str:
    return f"{i:032x}"


def by_id(rows: Rows) -> Iterator[tuple[Any, ...]]:
    return ((run_id(i), *rest) for i, *rest in rows)


@pytest.mark.slow
def test_a_million_different_texts_fit_into_two_gigabytes(sqlite_uri: str) -> None:
    n, names = 200_000, 5
    texts = ((i, f"text_{k}", f"chosen by nobody {k}.{i}") for k in range(names) for i in range(n))
    fill(sqlite_uri, n, texts, (), ())
    done = mlflow_meta("harvest", "--all-experiments", "--json", tracking_uri=sqlite_uri)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["n_trials"] == n
    assert done.peak_bytes < LIMIT_BYTES, f"{n} runs x {names} params: {done.peak}"


@pytest.mark.slow
def test_ten_thousand_names_of_each_kind_are_cut_and_learned_from(sqlite_uri: str) -> None:
    n, names, each = 2_000, 10_000, 100
    pairs = [(i, (i * each + k) % names) for i in range(n) for k in range(each)]
    fill(
        sqlite_uri,
        n,
        [
            *((i, "lr", f"{(i * 7919 % n) / n:.6f}") for i in range(n)),
            *((i, f"p{name}", str(i % 97) if name % 2 else f"c{i % 5}") for i, name in pairs),
        ],
        ((i, f"t{name}", f"c{i % 5}") for i, name in pairs),
        ((i, f"m{name}", i / n) for i, name in pairs),
    )
    done = mlflow_meta("harvest", "--all-experiments", "--json", tracking_uri=sqlite_uri)
    assert done.code == 0, done.stderr
    assert done.peak_bytes < LIMIT_BYTES, f"harvest of {names} names: {done.peak}"
    found = json.loads(done.stdout)
    assert found["n_trials"] == n
    assert found["metrics"]["loss"] == n
    assert found["remarks"] == [
        f"{kind}.*: {logged} names were logged; the {cap} that most runs have are kept."
        for kind, logged, cap in (
            ("params", names + 1, MAX_PARAMS),
            ("metrics", names + 1, MAX_METRICS),
            ("tags", names, MAX_TAGS),
        )
    ]
    done = mlflow_meta("train", "--metric", "loss", "--json", tracking_uri=sqlite_uri)
    assert done.code in (0, 3), done.stderr  # 3: nothing in it tells the loss
    assert done.peak_bytes < LIMIT_BYTES, f"train on {names} names: {done.peak}"
    assert done.cpu_s < TRAIN_CPU_S, f"train on {names} names: {done.peak}"
    assert json.loads(done.stdout)["n_features"] <= MAX_GIVEN + MAX_SEARCHED


def test_the_params_and_the_context_that_most_trials_have_are_learned_from() -> None:
    rng = np.random.default_rng(0)
    n, many = 40, 3 * MAX_SEARCHED
    drawn = pd.DataFrame(rng.uniform(size=(n, 2 * many)))
    drawn.columns = [
        *(f"params.p{i}" for i in range(many)),
        *(f"dataset.feature.f{i}" for i in range(many)),
    ]
    drawn[drawn < 0.1] = np.nan
    everywhere = ["params.p7", f"params.p{many - 1}", "dataset.feature.f7"]
    trials = drawn.assign(task="t", **dict.fromkeys(everywhere)).astype({"task": str})
    trials[everywhere] = rng.uniform(size=(n, 3))
    inferred = infer(trials)
    assert len(inferred.space.params) == MAX_SEARCHED
    assert {"p7", f"p{many - 1}"} <= set(inferred.space.params)
    reasons = set(inferred.left_out.values())
    assert reasons == {
        f"is one of {many} that vary; the {MAX_SEARCHED} that most runs have are searched"
    }
    encoder = Encoder.learn(trials, inferred.space)
    given = [column for column in encoder.columns if column.source.startswith("dataset.")]
    assert len(given) == MAX_GIVEN
    assert "dataset.feature.f7" in [column.source for column in given]
    assert any(f"the {MAX_GIVEN} best known are kept" in why for why in encoder.left_out.values())
