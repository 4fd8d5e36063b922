"""A real scheduler and worker processes, some of them killed: results are those of one machine."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from conftest import add_run, fill
from fault_proxy import Fault, FaultProxy
from mlflow import MlflowClient
from schedules import scheduled
from servers import dask, free_port, mlflow_server
from surfaces import all_rows, brute_force, random_rows, random_surface, relu_surface, tree_surface

from mlflow_meta import cluster as clusters
from mlflow_meta.attempt import Outcome
from mlflow_meta.cli import main
from mlflow_meta.cluster import Cluster, dask_cluster
from mlflow_meta.columns import frame_of
from mlflow_meta.errors import NoCluster, TryLater, Unreachable
from mlflow_meta.models import ZOO
from mlflow_meta.models.calls import Calls
from mlflow_meta.models.choice import compare, score_table
from mlflow_meta.search import spread as spreading
from mlflow_meta.search import top_k
from mlflow_meta.search.best import Weight, one
from mlflow_meta.search.branch import branch_and_bound
from mlflow_meta.search.choose import scan
from mlflow_meta.search.enumerated import enumerated
from mlflow_meta.search.surface import Engine, Incumbent, Surface
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.work import Rules, work, work_elsewhere
from mlflow_meta.space import SearchSpace
from mlflow_meta.store import MlflowStore, parts
from mlflow_meta.store.parts import read_in_parts
from mlflow_meta.store.runs import Runs

pytestmark = pytest.mark.slow

N_WORKERS = 2
KINDS = ("linear", "network", "lightgbm", "extra_trees", "transfer")
SEARCH = r"POST /api/2.0/mlflow/runs/search"
TRAINER = str(Path(__file__).parent / "trainer.py")
SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "depth": {"type": "int", "low": 2, "high": 12},
        "model": {"type": "categorical", "choices": ["a", "b", "c"]},
    }
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with dask(N_WORKERS) as address, dask_cluster(address) as opened:
        opened.client.wait_for_workers(N_WORKERS, timeout=60)
        yield opened


@pytest.fixture(scope="module")
def trials() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    configs = SPACE.sample(40, rng)
    frame = frame_of(configs, SPACE.names)
    value = abs(np.log10(frame["params.lr"]) + 2) + 0.1 * abs(frame["params.depth"] - 6)
    return frame.assign(
        task=np.where(np.arange(40) % 2, "wine", "digits"),
        value=value + rng.normal(0, 0.05, 40),
    )


@pytest.fixture
def many_uri(client: MlflowClient, sqlite_uri: str, tmp_path: Path) -> str:
    """Six experiments."""
    fill(client, tmp_path, n=12)
    for i in range(4):
        experiment = client.create_experiment(f"more-{i}")
        for j in range(3):
            add_run(
                client, experiment, params={"lr": 0.1 * j, f"own-{i}": j}, metrics={"val_loss": 1.0}
            )
    return sqlite_uri


def kill_one(cluster: Cluster) -> int:
    """kill -9 of a worker in the middle of something; its process id."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        at_work = [worker for worker, keys in cluster.client.processing().items() if keys]
        if at_work:
            pid: int = cluster.client.run(os.getpid, workers=at_work[:1])[at_work[0]]
            os.kill(pid, signal.SIGKILL)
            return pid
        time.sleep(0.01)
    raise AssertionError("no worker is at work")


def pids(cluster: Cluster) -> set[int]:
    cluster.client.wait_for_workers(N_WORKERS, timeout=60)
    return set(cluster.client.run(os.getpid).values())


def models_of(
    trials: pd.DataFrame, executor: Executor | None, progress: Callable[[str], None]
) -> tuple[pd.DataFrame, dict[str, dict[str, bytes]], list[float]]:
    """The table, each model's files, and what each predicts."""
    candidates = compare(trials, SPACE, names=KINDS, executor=executor, progress=progress)
    table = score_table(candidates, trials, executor=executor)
    predicted = [x for c in candidates for x in c.model.predict(trials).mean.tolist()]
    return table, {c.name: c.model.save() for c in candidates}, predicted


def test_models_compared_on_a_cluster_are_those_of_one_machine_also_where_a_worker_is_killed(
    cluster: Cluster, trials: pd.DataFrame
) -> None:
    before, killed, said, words = pids(cluster), [], [], []

    def kill_once(text: str) -> None:
        said.append(text)
        if not killed:
            killed.append(kill_one(cluster))

    table, files, predicted = models_of(trials, cluster.executor, kill_once)
    alone = models_of(trials, None, words.append)
    pd.testing.assert_frame_equal(table, alone[0], check_exact=True)
    assert files == alone[1]
    assert predicted == alone[2]
    assert said == words
    assert killed[0] in before - pids(cluster)


def test_threads_are_an_executor_too(trials: pd.DataFrame) -> None:
    with ThreadPoolExecutor(3) as threads:
        found = [
            score_table(compare(trials, SPACE, names=names, executor=executor), trials)
            for names in [("linear", "lightgbm", "gaussian_process")]
            for executor in (threads, None)
        ]
    pd.testing.assert_frame_equal(*found, check_exact=True)


def test_the_error_of_one_call_gives_up_the_others(cluster: Cluster) -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match="invalid literal"), Calls(cluster.executor) as calls:
        failing = calls.begin(int, "no number")
        for _ in range(100):
            calls.begin(time.sleep, 1.0)
        failing()
    while any(cluster.client.processing().values()):
        assert time.monotonic() - started < 15
        time.sleep(0.1)


def harvested(store: MlflowStore, executor: Executor | None = None) -> tuple[bytes, bytes]:
    """The meta-dataset and the curves of a full harvest."""
    found = harvest(store, full=True, dry_run=True, curves=["*"], executor=executor)
    return found.dataset.to_parquet(), found.curves.to_parquet()


def test_equal_calls_are_made_each(cluster: Cluster) -> None:
    """What is harvested twice has changed meanwhile."""
    asked = [cluster.executor.submit(os.urandom, 8) for _ in range(3)]
    assert len({answer.result(timeout=30) for answer in asked}) == 3


def test_a_database_read_in_parts_gives_the_same_bytes(
    cluster: Cluster, many_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MOST_PARTS", 4)
    store = MlflowStore(many_uri)
    told: list[int] = []
    found = harvest(store, dry_run=True, executor=cluster.executor, progress=told.append)
    assert found.dataset.to_parquet() == harvest(store, dry_run=True).dataset.to_parquet()
    assert told == sorted(told)
    assert told[-1] == found.n_read
    assert harvested(store, cluster.executor) == harvested(store)


def test_a_server_read_in_parts_gives_the_same_bytes_also_where_a_worker_is_killed(
    cluster: Cluster, many_uri: str, tmp_path: Path
) -> None:
    killed: list[int] = []
    with mlflow_server(many_uri, tmp_path) as url, FaultProxy(url) as proxy:
        served = MlflowStore(proxy.url)
        alone = harvested(served)
        proxy.arm(Fault("hook", match=SEARCH, n=2, hook=lambda: killed.append(kill_one(cluster))))
        assert harvested(served, cluster.executor) == alone
        assert killed
        first = harvest(served, executor=cluster.executor)
        assert first.full
        assert not harvest(served, executor=cluster.executor).full
    assert killed[0] not in pids(cluster)


def test_a_deadline_also_ends_a_harvest_whose_workers_wait(cluster: Cluster, many_uri: str) -> None:
    experiments = MlflowStore(many_uri).experiments()
    started = time.monotonic()

    def check(n: int) -> None:
        assert n == 0
        if time.monotonic() - started > 0.5:
            raise TryLater

    with pytest.raises(TryLater):
        read_in_parts(cluster.executor, lambda _: time.sleep(3) or Runs.empty(), experiments, check)
    assert time.monotonic() - started < 2


def test_what_a_worker_cannot_read_is_told_with_its_name(
    many_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MlflowStore(many_uri)
    experiments = store.experiments()
    store.uri, store.database = "sqlite:////nowhere/mlflow.db", None
    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(Unreachable, match=r"^On the worker \S+: There is no MLflow store at /now"),
    ):
        store.read_all(experiments, executor=executor)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what takes no second is sent to the workers."""
    monkeypatch.setattr(spreading, "ALONE_S", -1.0)


def all_but_the_best(n: int, surface: Surface) -> Weight:
    """Two configurations a row, but for some of which none is wanted; not to be imported."""
    (found,) = brute_force(surface, n, np.random.default_rng(0))
    gone = {row.tobytes() for row in found.rows}
    return lambda row: 2 * int(row.astype(np.int64).tobytes() not in gone)


def last(steps: Iterator[Incumbent]) -> Incumbent:
    *before, found = steps
    for step in before:
        assert step.rest <= found.values[-1]
    return found


@pytest.mark.parametrize("k", [1, 20])
@pytest.mark.parametrize(
    ("engine", "surface"),
    [
        (branch_and_bound, tree_surface((6, 9, 7, 8, 5), 1)),
        (branch_and_bound, relu_surface((6, 9, 7, 8, 5), 1)),
        (enumerated, relu_surface((6, 9, 7, 8, 5), 2)),
        (scan, relu_surface((16, 19, 17, 18), 3)),
    ],
)
def test_a_spread_search_has_the_rows_and_the_proof_of_one_machine(
    cluster: Cluster, at_once: None, engine: Engine, surface: Surface, k: int
) -> None:
    half = surface.sizes[0] // 2
    rest = tuple(np.arange(size) for size in surface.sizes[1:])
    boxes = [(np.arange(half), *rest), (np.arange(half, surface.sizes[0]), *rest)]
    rng, weight = np.random.default_rng(0), all_but_the_best(30, surface)
    alone = last(spreading.run(engine, surface, k, rng, boxes=boxes, weight=weight, n_gone=30))
    rng = np.random.default_rng(0)
    found = last(
        cluster.spread(
            engine, surface, k, rng, boxes=boxes, weight=weight, n_gone=30, seconds=60.0
        )
    )  # fmt: skip
    assert found.values.tolist() == alone.values.tolist()
    assert surface.values(found.rows).tolist() == found.values.tolist()
    assert found.rest == alone.rest
    assert found.gap == alone.gap == 0
    if len(np.unique(surface.values(found.rows))) == k:
        assert found.rows.tolist() == alone.rows.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_of_equal_rows_the_one_that_was_known_first_is_kept(
    cluster: Cluster, at_once: None, seed: int
) -> None:
    surface = random_surface("trees", (6, 9, 7, 8), np.random.default_rng(seed), is_coarse=True)
    boxes = [tuple(np.arange(size) for size in surface.sizes)]
    asked = {"boxes": boxes, "weight": one, "n_gone": 0}
    rng = np.random.default_rng(0)
    first, *_, alone = spreading.run(branch_and_bound, surface, 1, rng, **asked)
    assert first.values.tolist() == alone.values.tolist()
    ties = surface.values(all_rows(surface.sizes)) == alone.values[0]
    assert ties.sum() > 1
    rng = np.random.default_rng(0)
    found = last(cluster.spread(branch_and_bound, surface, 1, rng, **asked, seconds=60.0))
    assert found.rows.tolist() == alone.rows.tolist()


def test_configurations_found_on_a_cluster_are_those_of_one_machine(
    cluster: Cluster, trials: pd.DataFrame, at_once: None
) -> None:
    model = ZOO["network"]()
    model.learn(trials, SPACE)
    asked = {"context": {"task": "wine"}, "tried": SPACE.sample(5, np.random.default_rng(1))}
    for constraint in (None, lambda config: config["model"] != "a"):
        alone, found = (
            top_k(
                model, SPACE, 5, **asked, constraint=constraint, spread=spread,
                rng=np.random.default_rng(0), budget_s=60,
            )
            for spread in (None, cluster.spread)
        )  # fmt: skip
        assert found.configs == alone.configs
        assert found.values.tolist() == alone.values.tolist()
        assert found.is_exact
        assert alone.is_exact
        assert (found.bound, found.rest, found.engine) == (alone.bound, alone.rest, alone.engine)
        assert (found.n_configs, found.n_assessed) == (alone.n_configs, alone.n_assessed)


def test_a_search_whose_worker_is_killed_is_proven_all_the_same(
    cluster: Cluster, at_once: None
) -> None:
    pids(cluster)
    surface, rng = relu_surface((24,) * 6, 4), np.random.default_rng(0)
    boxes = [tuple(np.arange(size) for size in surface.sizes)]
    known = {"boxes": boxes, "weight": one, "n_gone": 0}
    alone = last(spreading.run(scan, surface, 10, rng, **known))
    killed: list[int] = []
    for found in cluster.spread(scan, surface, 10, rng, **known, seconds=120.0):  # noqa: B007
        if not killed and any(cluster.client.processing().values()):
            killed.append(kill_one(cluster))
    assert killed
    assert found.rows.tolist() == alone.rows.tolist()
    assert (found.rest, found.n_assessed) == (alone.rest, alone.n_assessed)


def test_a_search_whose_workers_are_busy_is_proven_here(cluster: Cluster, at_once: None) -> None:
    surface = tree_surface((6, 9, 7, 8, 5, 6), 1)
    asked = {
        "boxes": [tuple(np.arange(size) for size in surface.sizes)],
        "weight": one,
        "n_gone": 0,
    }
    rng = np.random.default_rng(0)
    alone = last(spreading.run(branch_and_bound, surface, 20, rng, **asked))
    busy = [cluster.executor.submit(time.sleep, 4 + i) for i in range(N_WORKERS)]
    rng = np.random.default_rng(0)
    found = last(cluster.spread(branch_and_bound, surface, 20, rng, **asked, seconds=60.0))
    assert not busy[-1].done()
    assert found.rows.tolist() == alone.rows.tolist()
    assert (found.rest, found.gap) == (alone.rest, 0)


def test_a_search_that_has_no_time_left_keeps_the_bound_that_it_had(
    cluster: Cluster, at_once: None
) -> None:
    surface = relu_surface((200,) * 9, 5, n_units=80)
    boxes = [tuple(np.arange(size) for size in surface.sizes)]
    rng = np.random.default_rng(0)
    known = {"boxes": boxes, "weight": one, "n_gone": 0}
    first = next(spreading.run(branch_and_bound, surface, 3, np.random.default_rng(0), **known))
    steps = cluster.spread(branch_and_bound, surface, 3, rng, **known, seconds=1.5)
    until = time.monotonic() + 2.0
    found = last(itertools.takewhile(lambda _: time.monotonic() < until, steps))
    steps.close()
    assert -np.inf < first.rest <= found.rest < found.values[-1]
    values = surface.values(random_rows(surface.sizes, 20_000, rng))
    assert found.rest <= values.min()


def run(*args: str) -> Result:
    result = CliRunner().invoke(main, args)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def data(*args: str) -> dict:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    return {key: value for key, value in found.items() if key not in ("run_id", "version")}


def test_each_command_says_the_same_with_and_without_a_cluster(
    cluster: Cluster, at_once: None, filled_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", filled_uri)
    learned = ("--metric", "val_loss", "--kind", "network", "--kind", "linear")
    for command in (
        ("harvest",),
        ("train", *learned, "--model-name", "mine"),
        ("suggest", "-e", "sweep-a", "--seed", "3", "--dry-run", "--model-name", "mine"),
    ):
        alone, found = data(*command), data(*command, "--dask", cluster.address)
        for told in (alone, found):
            # Versions count up, seconds differ, and the second training meets a champion.
            for key in ("champion", "model", "searched", "verdict"):
                told.pop(key, None)
        assert found == alone


def test_tune_goes_round_on_a_cluster(
    cluster: Cluster, filled_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", filled_uri)
    monkeypatch.setenv("MLFLOW_META_DASK", cluster.address)
    asked = ("--metric", "val_loss", "--rounds", "1", "-n", "1", "--learn-from", "sweep-b")
    result = run("tune", "-e", "sweep-a", *asked, "--", sys.executable, TRAINER)
    assert result.exit_code == 0, result.output


def test_trainings_on_a_cluster_end_once_each_also_where_a_worker_is_killed(
    cluster: Cluster, client: MlflowClient, sqlite_uri: str, tmp_path: Path
) -> None:
    location = (tmp_path / "artifacts").as_uri()
    client.create_experiment("mlflow-meta", artifact_location=location)
    client.create_experiment("sweep", artifact_location=location)
    scheduled(MlflowStore(sqlite_uri), *({"x": str(i)} for i in range(4)))
    seen = tmp_path / "seen"
    seen.mkdir()
    code = (
        f"import os, time; open(os.path.join({str(seen)!r}, os.environ['MLFLOW_RUN_ID']), 'ab')"
        ".write(b'x'); time.sleep(1.5)"
    )
    with ThreadPoolExecutor(1) as pool:
        command = [sys.executable, "-I", "-S", "-c", code]
        rules = Rules(lease_s=2.0)
        trained = pool.submit(
            work_elsewhere, cluster.executor, sqlite_uri, "sweep", command, 4, rules
        )
        deadline = time.monotonic() + 60
        while not any(seen.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        kill_one(cluster)
        done = trained.result(timeout=120)
    assert [e.outcome for e in done] == [Outcome.FINISHED] * len(done)
    assert len(done) in (3, 4)  # the killed worker may have ended one before
    work(MlflowStore(sqlite_uri), "sweep", command, rules)
    assert {path.stat().st_size for path in seen.iterdir()} == {1}
    experiment_id = client.get_experiment_by_name("sweep").experiment_id
    runs = client.search_runs([experiment_id])
    finished = [run for run in runs if run.info.status == "FINISHED"]
    assert sorted(run.data.params["x"] for run in finished) == ["0", "1", "2", "3"]
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}


def test_processes_of_this_machine_are_a_cluster_too() -> None:
    with dask_cluster("local:2") as opened:
        assert list(opened.client.nthreads().values()) == [1, 1]
        assert os.getpid() != opened.executor.submit(os.getpid).result(timeout=60)
        asked = ["MALLOC_MMAP_THRESHOLD_", "OMP_NUM_THREADS"]
        (told, _) = opened.client.run(lambda: [os.environ[name] for name in asked]).values()
    assert told == [str(2**25), "1"]


def refusal(*args: str) -> str:
    result = run(*args)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    return line


def test_what_is_wrong_with_a_cluster_is_one_line(
    filled_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", filled_uri)
    monkeypatch.setattr(clusters, "CONNECT_S", 0.5)
    monkeypatch.setattr(clusters, "WORKERS_S", 0.5)
    nobody = f"tcp://127.0.0.1:{free_port()}"
    line = refusal("train", "--dask", nobody)
    assert f"No scheduler of Dask answers at {nobody}" in line
    monkeypatch.setattr(clusters, "CONNECT_S", 20.0)
    with dask(0) as address:
        line = refusal("harvest", "--dask", address)
        assert "has no workers" in line
        assert f"`dask worker {address} --nthreads 1`" in line
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "distributed", None)
        assert "pip install distributed" in refusal("suggest", "-e", "a", "--dask", nobody)
    for wrong in ("127.0.0.1:8786", "tcp://host", "local:0", "locally"):
        result = run("harvest", "--dask", wrong)
        assert result.exit_code == 2
        assert f"{wrong!r} is no cluster" in result.stderr


WORKER = """
import sys
sys.path.append({folder!r})
from distributed.cli.dask_worker import main
main()
"""


def test_workers_with_other_versions_are_told_by_name(tmp_path: Path) -> None:
    """Workers of a Python whose packages are ours, but for two."""
    for path in Path(np.__file__).parent.parent.iterdir():
        if not path.name.lower().startswith(("lightgbm-", "mlflow_meta", "_editable")):
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "lightgbm-1.0.dist-info").mkdir()
    (tmp_path / "lightgbm-1.0.dist-info" / "METADATA").write_text("Name: lightgbm\nVersion: 1.0\n")
    argv = [sys.executable, "-S", "-c", WORKER.format(folder=str(tmp_path)), "--no-nanny"]
    told = r"worker tcp://127\.0\.0\.1:\d+ has no mlflow-meta, lightgbm 1\.0 \(here \d"
    with dask(1, argv) as address, pytest.raises(NoCluster, match=told), dask_cluster(address):
        pass


def test_a_scheduler_that_goes_in_the_middle_is_told() -> None:
    with (
        dask(1) as address,
        pytest.raises(NoCluster, match="has gone in the middle of the work"),
        dask_cluster(address) as opened,
    ):
        waiting: Future[None] = opened.executor.submit(time.sleep, 60)
        os.kill(opened.client.run_on_scheduler(os.getpid), signal.SIGKILL)
        waiting.result(timeout=60)


def test_work_that_kills_every_worker_is_told(cluster: Cluster) -> None:
    with (
        pytest.raises(NoCluster, match=r"Again and again a worker of tcp://\S+ died"),
        dask_cluster(cluster.address) as opened,
    ):
        opened.executor.submit(os._exit, 1).result(timeout=120)
