"""The demo: the whole loop on real trainings, in a tracking store of its own.

`train.py` beside this file is a plain MLflow script, such as a team has, that knows nothing of us.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlflow_meta.errors import MetaError
from mlflow_meta.loop import tune
from mlflow_meta.services.report import Report
from mlflow_meta.store import MlflowStore

DATASETS = ("breast_cancer", "digits", "wine", "diabetes")
TARGET = "digits"
RUNS_EACH = 16  # runs that the team has made on each data set before we come
N_SUGGESTIONS = 5
METRIC = "val_loss"
SEED = 0
SCRIPT = Path(__file__).with_name("train.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What the demo has left behind.

    Attributes:
        uri: Its tracking store.
        report: What was suggested, predicted and got.
        guide: How to see it in the MLflow UI.
    """

    uri: str
    report: Report
    guide: str


def demo(folder: Path, *, progress: Callable[[str], None] = lambda _: None) -> Demo:
    """Make a store full of real runs in `folder`, and run the loop once on it.

    Args:
        folder: Where the store goes; must not exist.
        progress: Called with what is being done.

    Raises:
        MetaError: If a training fails; its output is part of the message.
    """
    folder.mkdir(parents=True)
    uri = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    progress("making a tracking store")
    store = MlflowStore.create(
        uri, [f"demo-{name}" for name in DATASETS], folder.resolve() / "artifacts"
    )
    _sweep(uri, progress)
    command = [sys.executable, str(SCRIPT), f"--dataset={TARGET}"]
    with (folder / "training.log").open("w") as log:
        done = tune(
            store,
            f"demo-{TARGET}",
            command,
            rounds=1,
            n=N_SUGGESTIONS,
            metric=METRIC,
            output=log,
            rng=np.random.default_rng(SEED),
            progress=progress,
        )
    return Demo(uri=uri, report=done.report, guide=_guide(uri, done.rounds[-1].suggestions.view))


def _sweep(uri: str, progress: Callable[[str], None]) -> None:
    """What the team did before we came: random search on each data set, two at a time."""
    n_done = 0

    def run(name: str) -> None:
        nonlocal n_done
        options = [f"--dataset={name}", f"--sweep={RUNS_EACH}", f"--seed={SEED}"]
        _train(uri, options)
        n_done += 1
        progress(f"training {n_done} of {len(DATASETS)} sweeps of {RUNS_EACH} runs, as a team did")

    progress(f"training {len(DATASETS)} x {RUNS_EACH} runs, as a team did")
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(run, DATASETS))


def _train(uri: str, options: Sequence[str]) -> None:
    environment = {**os.environ, **_ONE_THREAD, "MLFLOW_TRACKING_URI": uri}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MetaError(f"The demo's training failed: {done.stderr.strip()[-1000:]}")


# Two trainings at once on a small machine: more threads would only be in each other's way.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GIT_PYTHON_REFRESH": "quiet"}


def _guide(uri: str, view: str) -> str:
    return (
        f"\nThe store: {uri}\n"
        f"See it in the MLflow UI:\n"
        f"    mlflow ui --backend-store-uri {uri}\n"
        f"then open http://127.0.0.1:5000{view}\n"
        f"On top stand the runs called 'suggested 1: ...' and so on, with what was predicted\n"
        f"beside what they got; open one, and its description says what was expected.\n"
        f"The experiment mlflow-meta holds the harvest and the training; Models, the champion.\n"
        f"Go on with another data set:\n"
        f"    export MLFLOW_TRACKING_URI={uri}\n"
        f"    mlflow-meta suggest -e demo-wine\n"
        f"    mlflow-meta work -e demo-wine -- python {SCRIPT} --dataset=wine"
    )
