"""How long does a batch of suggestions wait for its report, where runs are many?

    python tests/benchmarks/report.py --runs 10000

On an SQLite store, in this process: the report and the picture that `suggest` keeps beside a batch,
beside the harvest of the same runs from nothing. The exit code is 1 if drawing takes more than it
may.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

import stores

from mlflow_meta.effort import Limits
from mlflow_meta.known import known_to, space_of
from mlflow_meta.models import ZOO
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.suggest.drawings import drawings
from mlflow_meta.services.suggest.search import Asked, search
from mlflow_meta.services.train import train
from mlflow_meta.store import MlflowStore, registry

DRAWING_S = 2.0
SEARCH_S = 2.0  # which is not what is measured


def main() -> int:
    """Measure, and print the table; 1 if drawing takes more than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--metric", default="val_loss")
    parser.add_argument("--kind", choices=sorted(ZOO), action="append", help="all by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "mlflow.db")
        names = stores.fill_sqlite(database, args.runs, until_ms=int(time.time() * 1000))
        store = MlflowStore(f"sqlite:///{database}")
        began = time.perf_counter()
        harvest(store)
        harvest_s = time.perf_counter() - began
        train(store, metric=args.metric, kinds=args.kind or ())
        champion = registry.champion(store, metric=args.metric)
        known = known_to(store, champion)
        name = next(iter(names))
        it = Asked(
            experiment_name=name, champion=champion, known=known, task=name, n=10,
            space=space_of(known, name, champion.model), where=(), seed=0, limits=Limits(), also=(),
            search_s=SEARCH_S, suggested=(),
        )  # fmt: skip
        found = search(it, None, lambda _: None)
        rows = []
        for turn in ("first", "again"):  # the first imports and compiles
            began, cpu = time.perf_counter(), time.process_time()
            files = drawings(it, found, datetime.now(timezone.utc))
            rows.append((turn, time.perf_counter() - began, time.process_time() - cpu, files))
    n_own = int((known.trials["task"] == name).sum())
    print(f"{args.runs} runs, {n_own} of them of the task; champion: {champion.kind}")
    print(f"harvest of all            {harvest_s:6.2f} s")
    for turn, seconds, cpu_s, files in rows:
        sizes = ", ".join(f"{file} {len(data) / 1000:.0f} kB" for file, data in files.items())
        print(
            f"drawing a batch, {turn:<8} {seconds:6.2f} s, {seconds / harvest_s:5.2f} of it, "
            f"allowed {DRAWING_S:.0f} s ({cpu_s:.2f} s of CPU; {sizes})"
        )
    return int(any(seconds > DRAWING_S for _, seconds, _, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
