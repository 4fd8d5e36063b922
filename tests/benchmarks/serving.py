"""How much slower is a served meta-model than an MLflow model that does nothing?

    python tests/benchmarks/serving.py

Both are served by `mlflow models serve --env-manager local`, at the same time, and asked by turns
over one kept-alive connection each; reasons and all other columns are told. The empty model is a
pyfunc without a signature that returns one number a row. Printed for each kind of meta-model:

    p95     of the time of one row, ours over that of the empty model (median of the rounds)
    median  likewise
    load    seconds that `mlflow.pyfunc.load_model` takes in a fresh process that has imported the
            scoring server, ours less the empty model's (medians)

Exit code 1 where p95 is more than 2 times that of the empty model, or loading more than 2 s longer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import mlflow
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from served_history import history, packed, saved
from servers import model_server

MOST_TIMES, MOST_SECONDS = 2.0, 2.0
EMPTY = '''"""Answers every row with 0."""
import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel


class Empty(PythonModel):
    def predict(self, context, model_input, params=None):
        return pd.DataFrame({"prediction": [0.0] * len(model_input)})


mlflow.models.set_model(Empty())
'''
LOAD = """import sys, time
import mlflow.pyfunc.scoring_server
started = time.monotonic()
mlflow.pyfunc.load_model(sys.argv[1])
print(time.monotonic() - started)
"""
ROW = {
    "task": "sweep-1", "model": "mlp", "lr": 0.03, "epochs": 20, "units": 64, "dropout": 0.1,
    "batch_size": 64, "nesterov": True, "hardware.gpu_model": "T4",
}  # fmt: skip


class Client:
    """One connection that is kept alive."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=60)
        self._body = json.dumps({"dataframe_records": [ROW]}).encode()

    def seconds(self) -> float:
        started = time.perf_counter()
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/invocations", self._body, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        return time.perf_counter() - started


def rounds(ours: Client, empty: Client, n_rounds: int, n_requests: int) -> np.ndarray:
    """p95 and median of ours and of the empty model, `(rounds, 2, 2)` in seconds."""
    found = []
    for _ in range(n_rounds):
        times = np.array([(ours.seconds(), empty.seconds()) for _ in range(n_requests)])
        found.append(np.quantile(times, (0.95, 0.5), axis=0))
    return np.array(found)


def loading(folders: dict[str, Path], n: int) -> dict[str, float]:
    """Median seconds of loading each model, by turns."""
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    times: dict[str, list[float]] = {name: [] for name in folders}
    for _ in range(n):
        for name, folder in folders.items():
            argv = [sys.executable, "-c", LOAD, str(folder)]
            done = subprocess.run(argv, env=env, check=True, capture_output=True, text=True)
            times[name].append(float(done.stdout.splitlines()[-1]))
    return {name: float(np.median(seconds)) for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=["transfer", "lightgbm", "network"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--loads", type=int, default=5)
    parser.add_argument("--trials", type=int, default=60, help="of each of 4 tasks")
    asked = parser.parse_args()
    missed = 0
    trials = history(asked.trials)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        code = Path(scratch, "empty.py")
        code.write_text(EMPTY)
        folders = {"empty": Path(scratch, "empty")}
        mlflow.pyfunc.save_model(str(folders["empty"]), python_model=str(code))
        for kind in asked.kinds:
            folders[kind] = saved(packed(trials, kind), trials, Path(scratch))
        seconds = loading(folders, asked.loads)
        uri = f"sqlite:///{scratch}/mlflow.db"
        url_of_empty = stack.enter_context(model_server(str(folders["empty"]), uri))
        for kind in asked.kinds:
            with model_server(str(folders[kind]), uri) as url:
                # A server hangs up after 5 s without a question.
                ours, empty = Client(url), Client(url_of_empty)
                rounds(ours, empty, 1, 20)  # what is made once
                p95, median = np.median(rounds(ours, empty, asked.rounds, asked.requests), axis=0)
            more_s = seconds[kind] - seconds["empty"]
            times = p95[0] / p95[1]
            is_met = times <= MOST_TIMES and more_s <= MOST_SECONDS
            missed += not is_met
            print(
                f"{kind:<12} p95 {1e3 * p95[0]:.1f} ms, {times:.2f} times; median "
                f"{1e3 * median[0]:.1f} ms, {median[0] / median[1]:.2f} times; load "
                f"{seconds[kind]:.2f} s, {more_s:+.2f} s  {'met' if is_met else 'MISSED'}",
                flush=True,
            )
    print(f"missed: {missed}")
    sys.exit(int(missed > 0))


if __name__ == "__main__":
    main()
