"""Reading runs: the same from a server as from its database, whatever happens meanwhile."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import psycopg2
import pyarrow as pa
import pytest
import sqlalchemy as sa
from conftest import add_run
from fault_proxy import Fault, FaultProxy
from mlflow import MlflowClient
from servers import mlflow_server

from mlflow_meta.cli.lock import alone
from mlflow_meta.errors import TryLater, Unreadable
from mlflow_meta.services import harvest as service
from mlflow_meta.services.harvest import harvest
from mlflow_meta.store import MlflowStore, patience, postgres, rest
from mlflow_meta.store.databases import Query, asking
from mlflow_meta.store.patience import Patience
from mlflow_meta.store.runs import KEY, TEXTS, Runs, ordered
from mlflow_meta.store.sql import read_sql
from mlflow_meta.store.tables import KNOWN_SCHEMAS

RUN_IDS = sa.select(sa.column("run_uuid")).select_from(sa.table("runs"))
SEARCH = r"POST /api/2.0/mlflow/runs/search"
NOW_MS = int(time.time() * 1000)


def read_both(store: MlflowStore) -> tuple[Runs, Runs]:
    """All runs by the database, and by pages."""
    experiments = store.experiments()
    ids = [e.experiment_id for e in experiments]
    by_sql = read_sql(store.uri, {e.experiment_id: e.name for e in experiments})
    by_rest = rest.read_rest(rest.over(store.client), ids)
    return by_sql, by_rest


def meta(store: MlflowStore) -> bytes:
    """The meta-dataset's bytes of a full harvest."""
    return harvest(store, full=True, dry_run=True).dataset.to_parquet()


def by_rest(uri: str) -> MlflowStore:
    """A database's store that is read by pages all the same."""
    store = MlflowStore(uri)
    store.database = None
    return store


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(rest.Window.__init__, "__defaults__", (12,))


def test_both_readers_give_the_same_bytes(store: MlflowStore, small_pages: None) -> None:
    by_sql, by_pages = read_both(store)
    assert len(by_sql) == 54
    assert by_sql.to_bytes() == by_pages.to_bytes()
    assert Runs.from_bytes(by_sql.to_bytes()).to_bytes() == by_sql.to_bytes()


@pytest.mark.postgres
def test_both_readers_give_the_same_bytes_on_postgres(postgres_uri: str, small_pages: None) -> None:
    client = MlflowClient(postgres_uri)
    if client.get_experiment_by_name("read-a") is None:
        experiment = client.create_experiment("read-a")
        for i in range(20):
            add_run(client, experiment, params={"lr": 0.1 * i, "é": "ü"}, metrics={"loss": i / 7})
    by_sql, by_pages = read_both(MlflowStore(postgres_uri))
    assert len(by_sql) >= 20
    assert by_sql.to_bytes() == by_pages.to_bytes()


def test_sqlalchemy_reads_what_adbc_reads(
    store: MlflowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow_meta.store import databases

    experiments = {e.experiment_id: e.name for e in store.experiments()}
    by_adbc = read_sql(store.uri, experiments)

    class Other(databases.sa.engine.URL):  # a kind of database that ADBC has no driver for
        def get_backend_name(self) -> str:
            return "other"

    monkeypatch.setattr(databases.sa, "make_url", lambda _: Other("other", *(None,) * 5, {}))
    assert read_sql(store.uri, experiments).to_bytes() == by_adbc.to_bytes()


def test_two_connections_to_sqlite_read_one_moment(store: MlflowStore) -> None:
    path = store.uri.removeprefix("sqlite:///")
    with asking(store.uri) as queries:
        assert len(queries) == 2
        writer = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"), writer:
            writer.execute("UPDATE runs SET status = 'KILLED'")
        assert [_statuses(query) & {"KILLED"} for query in queries] == [set(), set()]
    with writer:
        writer.execute("UPDATE runs SET status = 'KILLED'")
    writer.close()
    with asking(store.uri) as queries:  # by the handles of before
        assert [_statuses(query) for query in queries] == [{"KILLED"}] * 2


def test_a_database_in_wal_mode_is_read_at_one_moment_while_others_write(
    store: MlflowStore,
) -> None:
    whole = meta(store)
    writer = sqlite3.connect(store.uri.removeprefix("sqlite:///"))
    writer.execute("PRAGMA journal_mode=wal")
    assert meta(store) == whole
    with asking(store.uri) as (query,), writer:
        before = _statuses(query)
        writer.execute("UPDATE runs SET status = 'KILLED'")
        writer.commit()
        assert _statuses(query) == before != {"KILLED"}
    writer.close()


def test_reading_leaves_the_locks_of_this_process_in_place(store: MlflowStore) -> None:
    """Of a training in this process that logs meanwhile: other processes must go on waiting."""
    path = store.uri.removeprefix("sqlite:///")
    ours = sqlite3.connect(path, isolation_level=None)
    ours.execute("BEGIN IMMEDIATE")
    ours.execute("UPDATE runs SET status = 'KILLED'")
    assert "KILLED" not in meta(store).decode("latin1")
    others = f"import sqlite3; sqlite3.connect({path!r}, timeout=0).execute('BEGIN IMMEDIATE')"
    ended = subprocess.run([sys.executable, "-c", others], capture_output=True, check=False)
    assert b"locked" in ended.stderr
    ours.execute("ROLLBACK")
    ours.close()


def test_another_database_under_the_same_name_is_read_anew(
    store: MlflowStore, tmp_path: Path
) -> None:
    path = Path(store.uri.removeprefix("sqlite:///"))
    assert len(store.read_all(store.experiments())) > 0
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    tables = sqlite3.connect(copy)
    with tables:
        tables.execute("UPDATE runs SET lifecycle_stage = 'deleted'")
    tables.close()
    copy.replace(path)
    experiments = {e.experiment_id: e.name for e in store.experiments()}
    assert len(read_sql(store.uri, experiments)) == 0


@pytest.mark.postgres
def test_several_connections_to_postgres_read_one_moment(postgres_uri: str) -> None:
    client = MlflowClient(postgres_uri)
    experiment = client.create_experiment("moment")
    add_run(client, experiment, params={"lr": 0.1}, metrics={"loss": 0.5})
    with asking(postgres_uri) as queries:
        assert len(queries) == postgres.AT_ONCE > 1
        before = [_count(query) for query in queries]
        add_run(client, experiment, params={"lr": 0.2}, metrics={"loss": 0.5})
        assert [_count(query) for query in queries] == before == [before[0]] * len(queries)
    with asking(postgres_uri) as queries:
        assert _count(queries[0]) == before[0] + 1


@pytest.mark.postgres
def test_connections_to_postgres_are_kept_and_those_that_were_lost_are_opened_anew(
    postgres_uri: str,
) -> None:
    def backends() -> list[int]:
        with asking(postgres_uri) as queries:
            return [_single(query, sa.select(sa.func.pg_backend_pid())) for query in queries]

    engine = sa.create_engine(postgres_uri, poolclass=sa.NullPool)
    kept = backends()
    assert len(set(kept)) == postgres.AT_ONCE
    assert backends() == kept
    with engine.begin() as connection:
        states = connection.execute(
            sa.text("SELECT state, xact_start FROM pg_stat_activity WHERE pid = ANY(:pids)"),
            {"pids": kept},
        )
        assert [tuple(state) for state in states] == [("idle", None)] * len(kept)
        connection.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": kept[0]})
    renewed = backends()
    assert renewed[0] != kept[0]
    assert renewed[1:] == kept[1:]


FORKING = """
import os, sys
import sqlalchemy as sa
from mlflow_meta.store.databases import asking

def backends():
    with asking(sys.argv[1]) as queries:
        batches = [b for query in queries for b in query(sa.select(sa.func.pg_backend_pid()))]
        return [pid for batch in batches for pid in batch.column(0).to_pylist()]

kept = backends()
child = os.fork()
if child == 0:
    sys.exit(bool(set(backends()) & set(kept)))
assert os.waitpid(child, 0)[1] == 0, "the child used its parent's connections"
assert backends() == kept, "the child has closed its parent's connections"
"""


@pytest.mark.postgres
def test_a_forked_process_leaves_the_connections_to_its_parent(postgres_uri: str) -> None:
    argv = [sys.executable, "-c", FORKING, postgres_uri]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.postgres
def test_an_answer_of_postgres_that_was_not_read_to_its_end_is_in_nobodys_way(
    postgres_uri: str,
) -> None:
    long = sa.select(sa.column("n")).select_from(sa.text("generate_series(1, 10000000) AS n"))
    with pytest.raises(TryLater), asking(postgres_uri) as queries:
        next(iter(queries[0](long)))
        raise TryLater("Enough.")
    with asking(postgres_uri) as queries:
        assert len(queries) == postgres.AT_ONCE
        assert _single(queries[0], sa.select(sa.literal(1))) == 1


def _single(query: Query, select: sa.Select[Any]) -> int:
    (value,) = (value for batch in query(select) for value in batch.column(0).to_pylist())
    return int(value)


@pytest.mark.parametrize("n_runs", [1, 50, 70_000, 2**31 - 1])
def test_items_are_ordered_by_key_and_run_and_equal_ones_stay_as_they_came(n_runs: int) -> None:
    rng = np.random.default_rng(n_runs)
    runs = rng.integers(0, n_runs, 3000).astype(np.int32)
    keys = rng.choice(["lr", "depth", "a key", "Z"], 3000).tolist()
    values = [str(i) for i in range(3000)]
    coded = pa.array(keys).dictionary_encode().cast(KEY)
    table = ordered(pa.table([runs, coded, values], schema=TEXTS))
    got = list(zip(*(table[name].to_pylist() for name in ("key", "run", "value")), strict=True))
    expected = zip(keys, runs.tolist(), values, strict=True)
    assert got == sorted(expected, key=lambda item: item[:2])


def _count(query: Query) -> int:
    return sum(batch.num_rows for batch in query(RUN_IDS))


def _statuses(query: Query) -> set[str]:
    select = sa.select(sa.column("status")).select_from(sa.table("runs"))
    return {status for batch in query(select) for status in batch.column(0).to_pylist()}


def test_the_database_of_another_server_is_not_read(store: MlflowStore) -> None:
    with pytest.raises(Unreadable, match="not the tracking server's"):
        read_sql(store.uri, {"1": "somebody-else's"})


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////nowhere/{}@/mlflow.db",
        "postgresql+psycopg2://user:{}@127.0.0.1:1/x",
        "postgresql://user:{}@[nowhere/x",
        "postgresql://user:{}@127.0.0.1:port/x",
        "mysql+pymysql://user:{}@127.0.0.1:1/x",
        "mysql+pymysql://user:{}@127.0.0.1:port/x",
        "mysql+nosuch://user:{}@127.0.0.1:1/x",
        "mysql://user:{}@127.0.0.1:1/x",
    ],
)
@pytest.mark.parametrize("password", ["hunter2", "hunter2%25", "hunter2:/", "hunter2#%zz"])
def test_a_database_that_cannot_be_opened_is_unreadable_and_its_password_not_shown(
    uri: str, password: str
) -> None:
    with pytest.raises(Unreadable) as caught:
        read_sql(uri.format(password), {"1": "a"})
    assert str(caught.value)
    assert uri.startswith("sqlite") or "hunter" not in str(caught.value)


def test_a_database_of_an_unknown_schema_is_read_over_rest_and_that_is_said(
    store: MlflowStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = meta(store)
    future = tmp_path / "future.db"
    future.write_bytes(Path(store.uri.removeprefix("sqlite:///")).read_bytes())
    tables = sqlite3.connect(future)
    with tables:
        tables.execute("update alembic_version set version_num = 'ffffffffffff'")
    tables.close()
    other = MlflowStore(store.uri, store_uri=f"sqlite:///{future}")
    with caplog.at_level(logging.WARNING):
        assert meta(other) == whole
    assert "ffffffffffff" in caplog.text
    assert "over REST" in caplog.text


def test_the_schema_of_the_installed_mlflow_is_known() -> None:
    from mlflow.store.db.utils import _get_latest_schema_revision

    assert _get_latest_schema_revision() in KNOWN_SCHEMAS


@pytest.mark.slow
def test_a_fault_at_any_page_changes_nothing(
    store: MlflowStore, tmp_path: Path, small_pages: None
) -> None:
    whole = meta(store)
    with mlflow_server(store.uri, tmp_path) as url, FaultProxy(url) as proxy:
        served = MlflowStore(proxy.url)
        proxy.arm()
        assert meta(served) == whole
        n_pages = sum("/runs/search" in entry.path for entry in proxy.log)
        assert n_pages >= 5
        faults = [("drop_before", 0), ("drop_after", 0), ("partial", 0), ("replay", 0)]
        faults += [("status", code) for code in (400, 503)] + [("status_after", 502)]
        for action, status in faults:
            for n in range(1, n_pages + 1):
                proxy.arm(Fault(action, match=SEARCH, n=n, status=status or 500))
                assert meta(served) == whole, (action, status, n)


def test_a_server_that_stays_away_is_told_after_some_attempts(
    store: MlflowStore, tmp_path: Path
) -> None:
    with mlflow_server(store.uri, tmp_path) as url, FaultProxy(url) as proxy:
        served = MlflowStore(proxy.url, patience=Patience(0.5))
        proxy.arm(Fault("status", match=SEARCH, times=None, status=503))
        with pytest.raises(TryLater, match="did not answer in the time it was given: 503"):
            harvest(served)


@pytest.mark.slow
def test_runs_that_come_go_and_change_between_pages_are_neither_lost_nor_doubled(
    store: MlflowStore, client: MlflowClient, tmp_path: Path, small_pages: None
) -> None:
    experiment = client.get_experiment_by_name("sweep-a").experiment_id
    stay = set(read_both(store)[0].run_ids.to_pylist())
    gone: list[str] = []

    def change() -> None:
        run = add_run(client, experiment, params={"lr": 0.3}, metrics={"loss": 0.3})
        client.set_tag(run, "note", "edited")
        gone.append(sorted(stay)[len(gone)])
        client.delete_run(gone[-1])

    with mlflow_server(store.uri, tmp_path) as url, FaultProxy(url) as proxy:
        proxy.arm(*(Fault("hook", match=SEARCH, n=n, hook=change) for n in range(2, 8)))
        served = MlflowStore(proxy.url)
        ids = [e.experiment_id for e in served.experiments()]
        read = rest.read_rest(rest.over(served.client), ids).run_ids.to_pylist()
    assert len(gone) >= 5
    assert len(read) == len(set(read))
    assert stay - set(gone) <= set(read)


def test_a_second_harvest_reads_what_has_changed_and_equals_a_full_one(
    client: MlflowClient, sqlite_uri: str
) -> None:
    experiment = client.create_experiment("old")
    hour = 3_600_000
    old = [
        finished(client, experiment, NOW_MS - (100 - i) * hour, {"lr": 0.1 * i}) for i in range(40)
    ]
    running = client.create_run(experiment, start_time=NOW_MS - 50 * hour).info.run_id
    store = by_rest(sqlite_uri)
    first = harvest(store)
    assert (first.n_read, first.full, first.n_trials) == (41, True, 40)
    client.log_metric(running, "loss", 0.5)
    client.set_terminated(running, "FINISHED", end_time=NOW_MS - 30 * hour)
    fresh = finished(client, experiment, int(time.time() * 1000) - 1000, {"lr": 9})
    second = harvest(store)
    assert (second.n_read, second.full, second.n_trials) == (2, False, 42)
    assert {running, fresh} <= set(second.dataset.frame["run_id"])
    assert second.dataset.to_parquet() == meta(store)
    # What no time stamp tells is seen by the next full one.
    client.delete_run(old[3])
    client.set_tag(old[4], "team", "blue")
    assert harvest(store).n_trials == 42
    third = harvest(store, full=True)
    assert (third.n_trials, third.full) == (41, True)
    assert "blue" in set(third.dataset.frame["tags.team"].dropna())
    client.restore_run(old[3])
    assert harvest(store, full=True).n_trials == 42


def test_everything_is_read_again_after_some_harvests(
    store: MlflowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FULL_AFTER", 3)
    served = by_rest(store.uri)
    assert [harvest(served).full for _ in range(5)] == [True, False, False, True, False]


def test_a_harvest_killed_anywhere_leaves_nothing_that_the_next_one_takes_for_whole(
    store: MlflowStore,
) -> None:
    served = by_rest(store.uri)
    whole = harvest(served).dataset.to_parquet()
    program = (
        "import os, signal, sys\n"
        "from mlflow_meta.store import MlflowStore\n"
        "from mlflow_meta.services.harvest import harvest\n"
        "store = MlflowStore(sys.argv[1])\n"
        "store.database = None\n"
        "method = getattr(store, sys.argv[2])\n"
        "def die(*args, **kwargs):\n"
        "    if sys.argv[3] == 'after': method(*args, **kwargs)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "setattr(store, sys.argv[2], die)\n"
        "harvest(store)\n"
    )
    for method in ("create_run", "log_files", "log_batch", "set_status"):
        for moment in ("before", "after"):
            if (method, moment) == ("set_status", "after"):
                continue  # then it is whole
            ended = subprocess.run(
                [sys.executable, "-c", program, store.uri, method, moment],
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
                capture_output=True,
                check=False,
            )
            assert ended.returncode == -signal.SIGKILL, ended.stderr
            _, dataset = served.dataset()
            assert dataset.to_parquet() == whole
    assert harvest(served).dataset.to_parquet() == whole


def test_a_deadline_that_has_passed_leaves_nothing_behind(
    store: MlflowStore, client: MlflowClient
) -> None:
    with pytest.raises(TryLater, match=r"deadline of 1e-09 s passed.*nothing was written"):
        harvest(store, deadline_s=1e-9)
    assert client.get_experiment_by_name("mlflow-meta") is None


def test_two_harvests_of_the_same_runs_are_not_at_work_at_once() -> None:
    other = "from mlflow_meta.cli.lock import alone\nwith alone('harvest', 'here'): pass"
    with alone("harvest", "here"):
        ended = subprocess.run([sys.executable, "-c", other], capture_output=True, check=False)
    assert b"TryLater" in ended.stderr
    assert subprocess.run([sys.executable, "-c", other], check=False).returncode == 0


@pytest.mark.slow
def test_each_hostile_run_is_a_trial_or_quarantined_for_the_right_reason(
    sqlite_uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    with mlflow_server(sqlite_uri, tmp_path) as url:
        cases = hostile.fill(url, "hostile")
        check_hostile(MlflowStore(url), MlflowStore(sqlite_uri), cases)


@pytest.mark.slow
@pytest.mark.postgres
def test_each_hostile_run_on_postgres_too(postgres_uri: str, tmp_path: Path) -> None:
    admin = psycopg2.connect(postgres_uri.replace("postgresql+psycopg2", "postgresql"))
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute("CREATE DATABASE hostile_read")
    admin.close()
    uri = postgres_uri.rsplit("/", 1)[0] + "/hostile_read"
    with mlflow_server(uri, tmp_path) as url:
        cases = hostile.fill(url, "hostile")
        check_hostile(MlflowStore(url), MlflowStore(uri), cases)


def check_hostile(served: MlflowStore, database: MlflowStore, cases: list[hostile.Case]) -> None:
    assert len(cases) > 200
    found = harvest(served).dataset
    assert found.to_parquet() == meta(database)
    trials = set(found.frame["run_id"])
    reasons = dict(zip(found.quarantine["run_id"], found.quarantine["reason"], strict=True))
    assert not trials & set(reasons)
    wrong = []
    for case in cases:
        if case.run_id is None:
            continue
        left_out = reasons.get(case.run_id, hostile.ABSENT)
        said = hostile.TRIAL if case.run_id in trials else left_out
        ok = said != hostile.ABSENT if case.expected is None else case.expected in said
        if not ok:
            wrong.append((case.name, case.expected, said))
    assert not wrong
    assert not any("hunter2" in str(text) for text in found.frame.to_numpy().ravel())


def finished(
    client: MlflowClient, experiment: str, start_ms: int, params: dict[str, object]
) -> str:
    """A run that took a second."""
    run_id: str = client.create_run(experiment, start_time=start_ms).info.run_id
    for name, value in params.items():
        client.log_param(run_id, name, value)
    client.log_metric(run_id, "loss", 0.25, timestamp=start_ms + 500)
    client.set_terminated(run_id, "FINISHED", end_time=start_ms + 1000)
    return run_id
