"""How fast and how lean is a harvest, beside `mlflow.search_runs` on the same store?

    python tests/benchmarks/harvest.py --runs 10000 --backends sqlite postgres mysql

A store is made (see stores.py) and read by turns by `mlflow.search_runs` and by us, straight from
the database and from a real `mlflow server`. Every measurement has a process of its own; what is
imported and connected before the clock starts is the same for both: each reads an empty experiment
first. Printed are medians, and what is needed; the exit code is 1 if any of it was missed. With
100,000 runs `mlflow.search_runs` takes minutes over HTTP: choose with --parts and --repeats.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

import stores
from servers import mariadb, mariadb_programs, mlflow_server, postgres, postgres_programs

BACKENDS = ("sqlite", "postgres", "mysql")
PARTS = ("sql", "rest", "end-to-end", "incremental")
AGE_S = 3600.0
CHANGED = 0.01  # share of the runs that change between two harvests
BIG = 100_000  # runs; what is needed in seconds and bytes is needed of so many
SQL_SPEEDUP = 40.0
REST_WALL = {1: 0.85, 4: 0.55}  # workers -> ours / theirs
REST_CPU = 1 / 5
REST_MEMORY = 1 / 3
INCREMENTAL_SPEEDUP = 30.0
END_TO_END_S = 15.0
END_TO_END_MB = 1500.0
WARM_REQUESTS = 20  # for each of a server's workers, before anything is measured
NOTHING = "Default"  # MLflow's first experiment, which has no runs here


# One measurement, in a process of its own


def measure(what: str, uri: str, store_uri: str | None) -> dict[str, Any]:
    """Run one of `WORK` and say what it took.

    Returns:
        `wall_s`, `cpu_s` (of this process, all threads), `rss_before_mb` (after the imports),
        `rss_peak_mb`, and what the work says of its result.
    """
    work = WORK[what](uri, store_uri)
    # ru_maxrss is no use here: it also counts what the parent had when this process was made, and
    # the peak of the imports. The kernel's other account can be set back to what is used now.
    Path("/proc/self/clear_refs").write_text("5")
    before_mb, wall_s, cpu_s = _memory_mb("VmRSS"), time.perf_counter(), time.process_time()
    result = work()
    took = {
        "wall_s": time.perf_counter() - wall_s,
        "cpu_s": time.process_time() - cpu_s,
        "rss_before_mb": before_mb,
        "rss_peak_mb": _memory_mb("VmHWM"),
    }
    return took | _described(result)


def _memory_mb(name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def _described(result: Any) -> dict[str, Any]:
    dataset = getattr(result, "dataset", result)
    if not hasattr(dataset, "to_parquet") or not hasattr(dataset, "quarantine"):  # the peer's frame
        return {"n_runs": int((dataset["status"] == "FINISHED").sum())}
    return {
        "n_runs": len(dataset),
        "sha256": hashlib.sha256(dataset.to_parquet()).hexdigest(),
    }


def _theirs(uri: str, _: str | None) -> Callable[[], Any]:
    import mlflow

    mlflow.set_tracking_uri(uri)
    experiments = {e.name: e.experiment_id for e in mlflow.search_experiments()}
    mlflow.search_runs(experiment_ids=[experiments.pop(NOTHING)])
    ids = [experiments[name] for name in experiments if name != "mlflow-meta"]
    return lambda: mlflow.search_runs(experiment_ids=ids, max_results=1_000_000)


def _read(uri: str, store_uri: str | None) -> Callable[[], Any]:
    store = _store(uri, store_uri)
    store.read([NOTHING])

    def work() -> Any:
        found = store.read()
        _check_not_fallen_back(store, uri, store_uri)
        return found

    return work


def _harvest(uri: str, store_uri: str | None, *, full: bool = False) -> Callable[[], Any]:
    from mlflow_meta import harvest

    store = _store(uri, store_uri)
    harvest(store, [NOTHING])

    def work() -> Any:
        found = harvest(store, full=full)
        _check_not_fallen_back(store, uri, store_uri)
        return found

    return work


def _harvest_full(uri: str, store_uri: str | None) -> Callable[[], Any]:
    return _harvest(uri, store_uri, full=True)


def _store(uri: str, store_uri: str | None) -> Any:
    from mlflow_meta import MlflowStore

    return MlflowStore(uri, store_uri=store_uri) if store_uri else MlflowStore(uri)


def _check_not_fallen_back(store: Any, uri: str, store_uri: str | None) -> None:
    """A store that can't read its database reads over REST, which is not what is measured."""
    if (store_uri is not None or not uri.startswith("http")) and store.database is None:
        raise SystemExit("The database was not read directly: see the warning above.")


WORK: dict[str, Callable[[str, str | None], Callable[[], Any]]] = {
    "theirs": _theirs,
    "read": _read,
    "harvest": _harvest,
    "harvest-full": _harvest_full,
}


# Many measurements


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """What one measurement took."""

    wall_s: float
    cpu_s: float
    rss_before_mb: float
    rss_peak_mb: float
    n_runs: int
    sha256: str = ""

    @property
    def rss_added_mb(self) -> float:
        """Peak memory above what the imports had left."""
        return self.rss_peak_mb - self.rss_before_mb


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        what: What is compared.
        ours: What we took.
        theirs: What the peer took.
        got: What is to be judged.
        least: What is needed of it; None if there is no such bound.
        most: The same from above.
    """

    what: str
    ours: str
    theirs: str
    got: float
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        """Whether what is needed was met; true where nothing is."""
        return (self.least is None or self.got >= self.least) and (
            self.most is None or self.got <= self.most
        )

    def __str__(self) -> str:
        needed, verdict = "", ""
        if self.least is not None or self.most is not None:
            needed = f">= {self.least:.4g}" if self.least is not None else f"<= {self.most:.3g}"
            verdict = "met" if self.met else "MISSED"
        return (
            f"{self.what:<58} {self.ours:>10} {self.theirs:>10} {self.got:>8.4g} {needed:>8} "
            f"{verdict}"
        )


HEADER = f"{'':<58} {'ours':>10} {'theirs':>10} {'result':>8} {'needed':>8}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A store, and how to measure on it.

    Attributes:
        backend: The database's kind.
        database: Its URI.
        folder: Where processes run and servers keep artifacts.
        n_runs: Finished runs that were put in.
        repeats: How often everything is measured.
        workers: Of the servers.
    """

    backend: str
    database: str
    folder: Path
    n_runs: int
    repeats: int
    workers: Sequence[int]

    def rows(self, parts: Sequence[str]) -> Iterator[Row]:
        """The rows of some of `PARTS`."""
        if "sql" in parts:
            yield from self._sql()
        if not set(parts) - {"sql"}:
            return
        most = max(self.workers)
        for workers in sorted(set(self.workers)):
            with self._server(workers) as server:
                if "rest" in parts:
                    yield from self._rest(server, workers)
                if "end-to-end" in parts and workers == most:
                    yield from self._end_to_end(server)
        if "incremental" in parts:  # last: it changes the store
            for workers in sorted(set(self.workers)):
                with self._server(workers) as server:
                    yield from self._incremental(server, workers)

    def _sql(self) -> Iterator[Row]:
        ours, theirs = self._by_turns(self.database)
        what = f"{self.backend}: read by SQL"
        speedup = _median(theirs, "wall_s") / _median(ours, "wall_s")
        yield Row(
            what=f"{what}, wall s, times faster",
            ours=f"{_median(ours, 'wall_s'):.2f}",
            theirs=f"{_median(theirs, 'wall_s'):.2f}",
            got=speedup,
            least=None if self.backend == "mysql" else SQL_SPEEDUP,
        )
        yield _quotient(f"{what}, CPU s", ours, theirs, "cpu_s")
        yield _quotient(f"{what}, memory added, MB", ours, theirs, "rss_added_mb")

    def _rest(self, server: str, workers: int) -> Iterator[Row]:
        ours, theirs = self._by_turns(server)
        what = f"{self.backend}: read over REST, {workers} worker{'s'[: workers > 1]}"
        yield _quotient(f"{what}, wall s", ours, theirs, "wall_s", REST_WALL.get(workers))
        yield _quotient(f"{what}, client CPU s", ours, theirs, "cpu_s", REST_CPU)
        yield _quotient(f"{what}, memory added, MB", ours, theirs, "rss_added_mb", REST_MEMORY)
        yield _quotient(f"{what}, memory in all, MB", ours, theirs, "rss_peak_mb")

    def _end_to_end(self, server: str) -> Iterator[Row]:
        took = [self._measured("harvest", server, self.database) for _ in range(self.repeats)]
        _check_read(took, self.n_runs)
        big = self.n_runs >= BIG
        for what, name, most in (
            ("wall s", "wall_s", END_TO_END_S),
            ("memory in all, MB", "rss_peak_mb", END_TO_END_MB),
        ):
            got = _median(took, name)
            yield Row(
                what=f"{self.backend}: harvest by SQL, end to end, {what}",
                ours=f"{got:.2f}" if name == "wall_s" else f"{got:.0f}",
                theirs="",
                got=got,
                most=most if big else None,
            )

    def _incremental(self, server: str, workers: int) -> Iterator[Row]:
        full: list[Took] = []
        second: list[Took] = []
        same = 0
        for _ in range(self.repeats):
            stores.age(self.database, AGE_S)  # or what changed last would be read once more
            full.append(self._measured("harvest-full", server))
            added = stores.change(self.database, CHANGED, now_ms=int(time.time() * 1000))
            second.append(self._measured("harvest", server))
            full.append(self._measured("harvest-full", server))
            _check_read([second[-1], full[-1]], full[-2].n_runs + added)
            same += second[-1].sha256 == full[-1].sha256
        what = f"{self.backend}: second harvest over REST, {workers} worker{'s'[: workers > 1]}"
        yield Row(
            what=f"{what}, times faster",
            ours=f"{_median(second, 'wall_s'):.2f}",
            theirs=f"{_median(full, 'wall_s'):.2f}",
            got=_median(full, "wall_s") / _median(second, "wall_s"),
            least=INCREMENTAL_SPEEDUP,
        )
        yield Row(
            what=f"{what}, same bytes as a full one",
            ours=f"{same}",
            theirs=f"{self.repeats}",
            got=same / self.repeats,
            least=1.0,
        )

    def _by_turns(self, uri: str) -> tuple[list[Took], list[Took]]:
        """Ours and theirs; who begins changes from one repeat to the next."""
        took: dict[str, list[Took]] = {"read": [], "theirs": []}
        for i in range(self.repeats):
            for what in sorted(took, reverse=bool(i % 2)):
                took[what].append(self._measured(what, uri))
                _check_read(took[what][-1:], self.n_runs)
        return took["read"], took["theirs"]

    def _measured(self, what: str, uri: str, store_uri: str | None = None) -> Took:
        argv = [sys.executable, __file__, "measure", what, uri, *([store_uri] if store_uri else [])]
        env = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
        done = subprocess.run(
            argv, check=True, stdout=subprocess.PIPE, text=True, cwd=self.folder, env=env
        )
        took = Took(**json.loads(done.stdout.splitlines()[-1]))  # before it, MLflow's own words
        print(
            f"{self.backend} {what} {uri.split(':')[0]}: {took.wall_s:.2f} s, CPU "
            f"{took.cpu_s:.2f} s, {took.rss_before_mb:.0f} -> {took.rss_peak_mb:.0f} MB",
            file=sys.stderr,
            flush=True,
        )
        return took

    @contextmanager
    def _server(self, workers: int) -> Iterator[str]:
        with mlflow_server(self.database, self.folder / "artifacts", workers=workers) as uri:
            with ThreadPoolExecutor(4 * workers) as pool:  # a worker's first answer takes seconds
                list(pool.map(_ask, [uri] * WARM_REQUESTS * workers))
            yield uri


def _ask(server: str) -> None:
    """Let any of the server's workers search for runs."""
    body = json.dumps({"experiment_ids": ["0"]}).encode()
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server}/api/2.0/mlflow/runs/search", body, headers)
    with suppress(urllib.error.HTTPError):  # several first ones at once get in each other's way
        direct.open(request, timeout=60).close()


def _median(took: Sequence[Took], name: str) -> float:
    return float(median(getattr(one, name) for one in took))


def _quotient(
    what: str, ours: Sequence[Took], theirs: Sequence[Took], name: str, most: float | None = None
) -> Row:
    mine, peers = _median(ours, name), _median(theirs, name)
    digits = 0 if name.endswith("_mb") else 2
    return Row(
        what=what,
        ours=f"{mine:.{digits}f}",
        theirs=f"{peers:.{digits}f}",
        got=mine / peers,
        most=most,
    )


def _check_read(took: Sequence[Took], n_runs: int) -> None:
    """Who has not read all the runs is not fast but wrong."""
    for one in took:
        if one.n_runs != n_runs:
            raise SystemExit(f"{one.n_runs} finished runs were read, but the store has {n_runs}.")


@contextmanager
def _filled(backend: str, folder: Path, n_runs: int) -> Iterator[str]:
    """A new store with runs; yields its URI."""
    now_ms = int(time.time() * 1000)
    if backend == "sqlite":
        stores.fill_sqlite(folder / "mlflow.db", n_runs, until_ms=now_ms)
        yield f"sqlite:///{folder / 'mlflow.db'}"
        return
    if backend == "mysql":
        found = mariadb_programs()
        if found is None:
            raise SystemExit("No MariaDB is installed (apt-get install mariadb-server-core).")
        with mariadb(found) as uri:
            stores.fill_mysql(uri, n_runs, until_ms=now_ms)
            yield uri
        return
    programs = postgres_programs()
    if programs is None:
        raise SystemExit("No Postgres is installed (apt-get install postgresql).")
    with postgres(programs) as uri:
        stores.fill_postgres(uri, n_runs, until_ms=now_ms)
        yield uri


def main() -> int:
    """Measure, and print the table; 1 if something that is needed was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=["sqlite"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    rows: list[Row] = []
    print(f"{args.runs} runs, medians of {args.repeats}\n\n{HEADER}", flush=True)
    for backend in args.backends:
        with (
            tempfile.TemporaryDirectory() as folder,
            _filled(backend, Path(folder), args.runs) as database,
        ):
            bench = Bench(
                backend=backend,
                database=database,
                folder=Path(folder),
                n_runs=args.runs,
                repeats=args.repeats,
                workers=args.workers,
            )
            for row in bench.rows(args.parts):
                print(row, flush=True)
                rows.append(row)
    missed = [row.what for row in rows if not row.met]
    print(f"\nmissed: {'; '.join(missed) or 'nothing'}")
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3], *(sys.argv[4:5] or [None]))))
    else:
        sys.exit(main())
