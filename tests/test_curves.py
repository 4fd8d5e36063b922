"""Curves: the same by both readers, complete, and the best of them as it was logged."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from conftest import add_run
from fault_proxy import Fault, FaultProxy
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Metric
from servers import mlflow_server

from mlflow_meta.cli import main
from mlflow_meta.errors import NothingToLearn, TryLater
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.report import report
from mlflow_meta.services.suggest import suggest
from mlflow_meta.services.train import train
from mlflow_meta.store import MlflowStore, curves, histories, names, patience, rest
from mlflow_meta.store.patience import Patience
from mlflow_meta.store.runs import METRICS, Runs
from mlflow_meta.store.sql import read_sql

NAN, INF = float("nan"), float("inf")
NOW_MS = int(time.time() * 1000)
HISTORY = r"GET .*/metrics/get-history"
BULK = r"GET /ajax-api/2.0/mlflow/metrics/get-history-bulk"

Points = list[tuple[float, int, int]]  # value, time in ms, step

HOSTILE: dict[str, Points] = {
    "falls and rises": [(v, NOW_MS + i, i) for i, v in enumerate([3.0, 1.0, 2.0, 1.0, 4.0])],
    "not in order": [(0.5, NOW_MS + 3, 1), (0.25, NOW_MS, 9), (0.75, NOW_MS + 9, -4)],
    "several at a step": [(0.5, NOW_MS, 2), (0.25, NOW_MS + 1, 2), (0.25, NOW_MS, 2)],
    "huge steps": [(1.5, NOW_MS, -(2**62)), (0.1, NOW_MS, 2**62 + 1), (0.7, NOW_MS, 0)],
    "no numbers": [(NAN, NOW_MS, 0), (0.1, NOW_MS, 1), (INF, NOW_MS, 2), (-INF, NOW_MS, 3)],
    "ends in no number": [(0.3, NOW_MS, 0), (0.9, NOW_MS, 1), (NAN, NOW_MS, 2)],
    "junk": [(0.0, 0, 0), (0.4, NOW_MS, 1)],
    "a true zero": [(0.0, NOW_MS, 7), (0.4, NOW_MS, 8)],
    "never a number": [(NAN, NOW_MS, 0), (NAN, NOW_MS, 1)],
    "one point": [(0.125, NOW_MS, 0)],
    "long": [(float(np.sin(i) + i / 999), NOW_MS + i, i) for i in range(2 * curves.MAX_POINTS)],
}


def add_curves(client: MlflowClient, experiment: str) -> dict[str, str]:
    """A run for each hostile curve of `loss`, and others that are no results; name -> id."""
    ids = {}
    for name, points in HOSTILE.items():
        run = add_run(client, experiment, params={"lr": 0.1}, metrics={"accuracy": 0.5})
        log_curve(client, run, "loss", points)
        log_curve(client, run, "system/memory", [(1.0, NOW_MS, 0), (2.0, NOW_MS, 1)])
        ids[name] = run
    suggested = add_run(client, experiment, params={"lr": 0.1}, metrics={"loss": 0.5})
    client.set_tag(suggested, names.RANK, "1")
    for key in ("predicted_loss", "std_predicted_loss", "low_80_predicted_loss", names.RANK):
        client.log_metric(suggested, key, 0.4)
    theirs = add_run(client, experiment, params={"lr": 0.1}, metrics={"loss": 0.5})
    client.log_metric(theirs, "predicted_loss", 0.3)
    return {**ids, "suggested": suggested, "theirs": theirs}


def log_curve(client: MlflowClient, run: str, key: str, points: Points) -> None:
    logged = [Metric(key, value, time_ms, step) for value, time_ms, step in points]
    for start in range(0, len(logged), 1000):
        client.log_batch(run, metrics=logged[start : start + 1000])


@pytest.fixture(scope="session")
def curves_database(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """A database with the runs of `add_curves`, and these; tests copy it."""
    path = tmp_path_factory.mktemp("curves") / "mlflow.db"
    shutil.copy(empty_database, path)
    client = MlflowClient(f"sqlite:///{path}")
    return path, add_curves(client, client.create_experiment("curves"))


@pytest.fixture
def runs(curves_database: tuple[Path, dict[str, str]], sqlite_uri: str) -> dict[str, str]:
    """The runs of `add_curves` in `sqlite_uri`."""
    shutil.copy(curves_database[0], sqlite_uri.removeprefix("sqlite:///"))
    return curves_database[1]


@pytest.fixture
def small_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(histories, "MOST_POINTS", 7)
    monkeypatch.setattr(histories, "RUN_IDS", 4)


def by_sql(uri: str, *patterns: str) -> Runs:
    store = MlflowStore(uri)
    experiments = {e.experiment_id: e.name for e in store.experiments()}
    return read_sql(uri, experiments, patterns=patterns)


def by_rest(uri: str, *patterns: str, waiting: Patience | None = None) -> Runs:
    """By a server or, of a database, by MLflow's own store."""
    store = MlflowStore(uri, patience=waiting)
    store.database = None
    return store.read_all(store.experiments(), curves=patterns)


def usable(points: Points) -> Points:
    """In the order of (step, time, value)."""
    good = [p for p in points if abs(p[0]) < 1e300 and p[:2] != (0.0, 0)]
    return sorted(good, key=lambda p: (p[2], p[1], p[0]))


# --- reading ---------------------------------------------------------------------------------


def test_both_readers_give_the_bytes_of_the_same_curves(
    sqlite_uri: str, runs: dict[str, str], small_answers: None
) -> None:
    for patterns in (["loss"], ["*"], ["l*", "acc*"], ["system/*"], ["nothing"]):
        found = by_sql(sqlite_uri, *patterns)
        assert found.to_bytes() == by_rest(sqlite_uri, *patterns).to_bytes(), patterns
        assert Runs.from_bytes(found.to_bytes()).to_bytes() == found.to_bytes()


@pytest.mark.postgres
def test_both_readers_give_the_bytes_of_the_same_curves_on_postgres(
    postgres_uri: str, small_answers: None
) -> None:
    client = MlflowClient(postgres_uri)
    if client.get_experiment_by_name("curves") is None:
        add_curves(client, client.create_experiment("curves"))
    found = by_sql(postgres_uri, "*")
    assert found.to_bytes() == by_rest(postgres_uri, "*").to_bytes()
    assert found.curves.num_rows > curves.MAX_POINTS


def test_a_curve_is_what_was_logged_without_what_can_not_be_learned(
    sqlite_uri: str, runs: dict[str, str]
) -> None:
    read = curves.frame(by_sql(sqlite_uri, "loss"))
    found = {
        run: list(zip(rows["value"], rows["timestamp_ms"], rows["step"], strict=True))
        for run, rows in read.groupby("run_id", observed=True)
    }
    for name in HOSTILE.keys() - {"long", "never a number"}:
        assert found[runs[name]] == usable(HOSTILE[name]), name
    assert runs["never a number"] not in found
    assert len(found[runs["long"]]) == curves.MAX_POINTS


def test_curves_of_the_hardware_must_be_named_and_our_predictions_are_none(
    sqlite_uri: str, runs: dict[str, str]
) -> None:
    def read(pattern: str) -> dict[str, set[str]]:
        points = curves.frame(by_sql(sqlite_uri, pattern))
        return points.groupby("metric", observed=True)["run_id"].agg(set).to_dict()

    assert set(read("*")) == {"loss", "accuracy", "predicted_loss"}
    assert read("*")["predicted_loss"] == {runs["theirs"]}
    assert set(read("system/*")) == {"system/memory"}
    assert read("s*") == {}


def test_sqlalchemy_reads_the_curves_that_adbc_reads(
    sqlite_uri: str, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow_meta.store import databases

    by_adbc = by_sql(sqlite_uri, "loss")
    experiments = {e.experiment_id: e.name for e in MlflowStore(sqlite_uri).experiments()}

    class Other(databases.sa.engine.URL):  # a kind of database that ADBC has no driver for
        def get_backend_name(self) -> str:
            return "other"

    monkeypatch.setattr(databases, "BATCH_ROWS", 100)
    monkeypatch.setattr(databases.sa, "make_url", lambda _: Other("other", *(None,) * 5, {}))
    assert read_sql(sqlite_uri, experiments, patterns=["loss"]).to_bytes() == by_adbc.to_bytes()


def test_the_experiments_that_were_not_asked_for_are_not_read(
    sqlite_uri: str, runs: dict[str, str], client: MlflowClient
) -> None:
    few = client.create_experiment("few")
    run = add_run(client, few, params={"lr": 1}, metrics={"loss": 0.5})
    read = read_sql(sqlite_uri, {few: "few"}, patterns=["loss"])
    assert curves.frame(read)["run_id"].tolist() == [run]


@pytest.fixture
def proxy(sqlite_uri: str, tmp_path: Path) -> Iterator[FaultProxy]:
    """In front of a server of `sqlite_uri`."""
    with mlflow_server(sqlite_uri, tmp_path) as url, FaultProxy(url) as proxy:
        yield proxy


@pytest.mark.slow
def test_a_server_gives_the_bytes_of_its_database_whatever_it_offers_and_whatever_happens(
    sqlite_uri: str, runs: dict[str, str], proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = by_sql(sqlite_uri, "*")
    n_curves = curves.wanted(whole, ["*"]).num_rows
    assert by_rest(proxy.url, "*").to_bytes() == whole.to_bytes()
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.001)
    client = MlflowClient(proxy.url)

    def requests(*faults: Fault) -> list[str]:
        proxy.arm(*faults)
        read = histories.read_curves(histories.source(client), whole, ["*"])
        assert read.equals(whole.curves), faults
        return [entry.path for entry in proxy.log]

    # One request a metric is enough, where no answer can have been cut.
    assert len(requests()) == 3
    for code in (403, 404):
        asked = requests(Fault("status", match=BULK, times=None, status=code))
        pages = [path for path in asked if "bulk" not in path]
        assert len(pages) == n_curves
        assert len(asked) - len(pages) <= rest.SIDE_BY_SIDE
    # More points than one answer has, in the middle of a run and at its end; and pages.
    for most in (2001, 2000, 1000, 700):
        monkeypatch.setattr(histories, "MOST_POINTS", most)
        n = len(requests())
        assert n > 3
    faults = [("drop_before", 0), ("drop_after", 0), ("partial", 0), ("status", 400)]
    faults += [("status", 503), ("status_after", 502)]
    for i in range(max(n, len(faults))):
        action, status = faults[i % len(faults)]
        requests(Fault(action, match=HISTORY, n=i % n + 1, status=status or 500))
    proxy.arm(Fault("status", match=HISTORY, times=None, status=503))
    with pytest.raises(TryLater, match="did not answer in the time it was given: 503"):
        by_rest(proxy.url, "loss", waiting=Patience(0.5))


def test_points_that_are_logged_between_pages_are_neither_lost_nor_doubled(
    sqlite_uri: str, runs: dict[str, str], client: MlflowClient, small_answers: None
) -> None:
    class Logging(histories.OfStore):
        def page(self, key: str, run_id: str, token: str) -> tuple[list[histories.Point], str]:
            page = super().page(key, run_id, token)
            if not token:  # an earlier time: the pages after this one begin with a point of it
                client.log_metric(run_id, "loss", 0.5, timestamp=NOW_MS - 1, step=77)
            return page

    asked = Logging(MlflowClient(sqlite_uri)._tracking_client.store)
    found = histories._history(asked, "loss", runs["long"])
    steps = [point.step for point in found]
    assert len(steps) == len(set(steps)) == len(HOSTILE["long"])


def test_a_run_that_is_gone_for_good_has_no_curve(
    sqlite_uri: str, runs: dict[str, str], client: MlflowClient
) -> None:
    asked = histories.source(MlflowClient(sqlite_uri))
    assert histories._history(asked, "loss", "0" * 32) == []


@pytest.mark.parametrize("doubt", ["unordered", "missing", "short"])
def test_an_answer_about_many_runs_that_is_in_doubt_is_not_believed(
    sqlite_uri: str, runs: dict[str, str], monkeypatch: pytest.MonkeyPatch, doubt: str
) -> None:
    many: Callable[..., list[histories.Point]] = histories.OfStore.many

    def odd(self: histories.OfStore, key: str, run_ids: list[str]) -> list[histories.Point]:
        points = many(self, key, run_ids)
        if doubt == "missing":
            return [point for point in points if point.run_id != runs["junk"]]
        if doubt == "short":
            raise histories.NotOffered
        return points[::2] + points[1::2]

    monkeypatch.setattr(histories.OfStore, "many", odd)
    assert by_rest(sqlite_uri, "loss").to_bytes() == by_sql(sqlite_uri, "loss").to_bytes()


# --- what is kept ----------------------------------------------------------------------------


def table(of_curve: dict[tuple[str, int], list[float]]) -> pa.Table:
    rows = [
        (run, key, value, 1, step)
        for (key, run), values in of_curve.items()
        for step, value in enumerate(values)
    ]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * 5
    arrays = [pa.array(c, f.type) for c, f in zip(columns, METRICS, strict=True)]
    return pa.table(arrays, schema=METRICS)


@given(st.integers(curves.MAX_POINTS - 2, 3 * curves.MAX_POINTS), st.integers(0, 99))
def test_of_a_long_curve_its_ends_its_extremes_and_evenly_many_others_stay(
    n: int, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, n, n).astype(float)
    read = curves.kept(table({("loss", 0): values.tolist(), ("loss", 1): [1.0, 0.0]}))
    steps = read["step"].to_numpy()[:-2]
    assert len(steps) == min(n, curves.MAX_POINTS)
    assert (np.diff(steps) > 0).all()
    assert np.diff(steps).max() <= np.ceil(n / curves.MAX_POINTS) + 3
    assert {0, values.argmin(), values.argmax(), n - 1} <= set(steps)
    np.testing.assert_array_equal(read["value"].to_numpy()[:-2], values[steps])
    assert curves.kept(read).equals(read)


words = st.sampled_from(["a", "b", "c"])


@given(st.dictionaries(words, st.integers(1, 9)), st.lists(st.integers(1, 7)))
def test_no_run_is_in_two_batches(lengths: dict[str, int], cuts: list[int]) -> None:
    rows = [(run, i) for run, n in lengths.items() for i in range(n)]
    schema = pa.schema([("run", pa.string()), ("i", pa.int64())])
    columns = [[row[i] for row in rows] for i in range(2)]
    whole = pa.RecordBatch.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
    )
    ends = np.minimum(np.cumsum([0, *cuts, len(rows)]), len(rows)).tolist()
    batches = [whole.slice(a, b - a) for a, b in pairwise(ends)]
    found = list(curves.of_whole_runs(batches))
    assert [tuple(row.values()) for batch in found for row in batch.to_pylist()] == rows
    owners = [{row["run"] for row in batch.to_pylist()} for batch in found]
    assert sum(map(len, owners)) == len(lengths)


# --- the meta-dataset ------------------------------------------------------------------------


def test_the_best_of_each_curve_and_its_step_are_columns(
    sqlite_uri: str, runs: dict[str, str]
) -> None:
    found = harvest(MlflowStore(sqlite_uri), curves=["loss", "accuracy"], dry_run=True)
    frame = found.dataset.frame.set_index("run_id")
    for name, points in HOSTILE.items():
        row = frame.loc[runs[name]]
        if not (good := usable(points)):
            assert row[["min.loss", "max.loss", "min_step.loss", "max_step.loss"]].isna().all()
            continue
        low, high = min(good, key=lambda p: p[0]), max(good, key=lambda p: p[0])
        assert (row["min.loss"], row["min_step.loss"]) == (low[0], low[2]), name
        assert (row["max.loss"], row["max_step.loss"]) == (high[0], high[2]), name
    assert str(frame["min_step.loss"].dtype) == "Int64"
    assert frame["min.accuracy"].equals(frame["metrics.accuracy"].rename("min.accuracy"))
    assert "min_step.accuracy" not in frame
    assert f"loss: the curves of 1 runs have {curves.MAX_POINTS} points or more" in " ".join(
        found.dataset.remarks
    )


def test_the_points_are_an_artifact_of_the_harvest_and_a_frame(
    sqlite_uri: str, runs: dict[str, str], client: MlflowClient, tmp_path: Path
) -> None:
    found = harvest(MlflowStore(sqlite_uri), curves=["loss"])
    path = client.download_artifacts(found.run_id, "curves.parquet", str(tmp_path))
    read = pd.read_parquet(path)
    assert list(read.columns) == ["run_id", "metric", "step", "timestamp_ms", "value"]
    pd.testing.assert_frame_equal(read, found.curves)
    assert client.get_run(found.run_id).data.params["curves"] == "loss"
    none = harvest(MlflowStore(sqlite_uri))
    assert none.curves.empty
    assert "curves.parquet" not in [f.path for f in client.list_artifacts(none.run_id)]
    assert not [c for c in none.dataset.frame if str(c).startswith(("min.", "max."))]


def test_a_second_harvest_reads_the_curves_that_have_changed_and_equals_a_full_one(
    client: MlflowClient, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = client.create_experiment("old")
    hour = 3_600_000

    def add(start_ms: int, n: int) -> str:
        run = client.create_run(experiment, start_time=start_ms).info.run_id
        client.log_param(run, "lr", n)
        log_curve(client, run, "loss", [(1 / (i + n), start_ms + i, i) for i in range(5)])
        return str(run)

    for i in range(1, 20):
        client.set_terminated(add(NOW_MS - 50 * hour, i), end_time=NOW_MS - 40 * hour)
    running = add(NOW_MS - 30 * hour, 20)
    store = MlflowStore(sqlite_uri)
    store.database = None
    first = harvest(store, curves=["loss"])
    assert (first.full, len(first.curves)) == (True, 100)
    log_curve(client, running, "loss", [(0.01, NOW_MS, 5), (0.5, NOW_MS, 6)])
    client.set_terminated(running, end_time=NOW_MS)
    asked: list[str] = []
    many = histories.OfStore.many
    monkeypatch.setattr(
        histories.OfStore,
        "many",
        lambda self, key, ids: (asked.extend(ids), many(self, key, ids))[1],
    )
    second = harvest(store, curves=["loss"])
    assert (second.full, second.n_read, asked) == (False, 1, [running])
    whole = harvest(store, full=True, curves=["loss"], dry_run=True)
    assert second.dataset.to_parquet() == whole.dataset.to_parquet()
    pd.testing.assert_frame_equal(second.curves, whole.curves)
    assert len(second.curves) == 102
    # What was read with other patterns is not continued.
    assert harvest(store, curves=["l*"]).full
    assert harvest(store).full
    assert not harvest(store, curves=["loss", "loss"]).full


def test_a_deadline_ends_the_reading_of_curves_too(sqlite_uri: str, runs: dict[str, str]) -> None:
    for database in (sqlite_uri, None):
        store = MlflowStore(sqlite_uri)
        store.database = database
        calls: list[int] = []

        def late(n: int, calls: list[int] = calls) -> None:
            calls.append(n)
            if len(calls) > 1:
                raise TryLater("late")

        with pytest.raises(TryLater):
            store.read_all(store.experiments(), late, curves=["loss"])
        assert calls == [len(runs)] * 2


# --- learning the best of a curve ------------------------------------------------------------


@pytest.fixture
def overfitted(store: MlflowStore, client: MlflowClient) -> str:
    """`filled_uri`, where each finished training got worse again after its best step."""
    for name in ("sweep-a", "sweep-b"):
        experiment = client.get_experiment_by_name(name).experiment_id
        for run in client.search_runs([experiment], "attributes.status = 'FINISHED'"):
            last = run.data.metrics["val_loss"]
            client.log_metric(run.info.run_id, "val_loss", 3 * last, step=2, timestamp=NOW_MS + 9)
    return store.uri


def cli(uri: str, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--tracking-uri", uri], catch_exceptions=False)


@pytest.mark.slow
def test_the_best_of_the_curves_is_harvested_learned_suggested_for_and_reported(
    overfitted: str, client: MlflowClient, tmp_path: Path
) -> None:
    learn = ["train", "--metric", "val_loss", "--at", "best", "--json"]
    assert cli(overfitted, "harvest").exit_code == 0
    refused = cli(overfitted, *learn)
    assert refused.exit_code == 1
    command = shlex.split(refused.stderr.split("`")[1])
    assert command == ["mlflow-meta", "harvest", "--curves", "val_loss"]
    out = tmp_path / "runs.parquet"
    assert cli(overfitted, *command[1:], "--out", str(out)).exit_code == 0
    points = pd.read_parquet(tmp_path / "runs.curves.parquet")
    best = points.groupby("run_id", observed=True)["value"].min()
    learned = json.loads(cli(overfitted, *learn).stdout)
    assert learned["at"] == "best"
    values = MlflowStore(overfitted).dataset()[1]
    trials = values.trials(values.objective("val_loss", at="best")).set_index("run_id")["value"]
    assert trials.to_dict() == best[trials.index].to_dict()
    store = MlflowStore(overfitted)
    found = suggest(store, "sweep-a", n=1, rng=np.random.default_rng(0))
    of_a = set(values.only(["sweep-a"]).frame["run_id"])
    assert found.best_so_far == best[best.index.isin(of_a)].min()
    log_curve(client, found.run_ids[0], "val_loss", [(0.001, NOW_MS, 0), (7.0, NOW_MS + 1, 1)])
    client.set_terminated(found.run_ids[0])
    balance = report(store, "sweep-a")
    assert balance.objective.at == "best"
    assert balance.suggested["got"].tolist() == [0.001]
    assert (balance.best_before, balance.best_after) == (found.best_so_far, 0.001)


def test_a_newer_harvest_without_curves_is_not_mixed_with_the_best_of_them(
    overfitted: str,
) -> None:
    store = MlflowStore(overfitted)
    harvest(store, curves=["val_loss"])
    train(store, metric="val_loss", at="best")
    harvest(store)
    with pytest.raises(NothingToLearn, match="`mlflow-meta harvest --curves val_loss`"):
        suggest(store, "sweep-a", dry_run=True)
