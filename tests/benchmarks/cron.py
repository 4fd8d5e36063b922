"""How long does cron wait on a server with many runs?

    python tests/benchmarks/cron.py --runs 10000

On a real `mlflow server` over SQLite, each command a new process over HTTP: `cycle` from nothing
(harvest, train, suggest), `suggest -n 10` with a champion, `cycle` with nothing new, and, to
compare, `mlflow.search_runs` reading the same runs once. The exit code is 1 if more is taken than
allowed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

import stores
from servers import mlflow_server

CYCLE_S = 60.0  # from nothing
SUGGEST_S = 15.0
THEIRS = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.search_runs(search_all_experiments=True, max_results=1_000_000)
"""


def took(*command: str) -> float:
    """Seconds of a whole process."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return time.perf_counter() - began


def main() -> int:
    """Measure, and print the table; 1 if something that is allowed was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--metric", default="val_loss")
    args = parser.parse_args()
    program = str(Path(sys.executable).with_name("mlflow-meta"))
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "mlflow.db")
        names = stores.fill_sqlite(database, args.runs, until_ms=int(time.time() * 1000))
        with mlflow_server(f"sqlite:///{database}", Path(folder, "artifacts"), workers=4) as url:
            asked = ["-e", next(iter(names)), "--metric", args.metric, "--tracking-uri", url]
            theirs_s = took(sys.executable, "-c", THEIRS, url)
            rows = [
                ("cycle, from nothing", took(program, "cycle", *asked), CYCLE_S),
                ("suggest -n 10", took(program, "suggest", "-n", "10", *asked), SUGGEST_S),
                ("cycle, nothing new", took(program, "cycle", *asked), CYCLE_S),
            ]
    print(f"{args.runs} runs over HTTP; mlflow.search_runs, only reading: {theirs_s:.1f} s")
    for what, seconds, allowed_s in rows:
        ratio = seconds / theirs_s
        print(f"{what:<22}{seconds:6.1f} s, {ratio:5.2f} of it, allowed {allowed_s:.0f} s")
    return int(any(seconds > allowed_s for _, seconds, allowed_s in rows))


if __name__ == "__main__":
    sys.exit(main())
