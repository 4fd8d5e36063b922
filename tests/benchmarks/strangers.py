"""Can the runs of one team's store be predicted from those of others, whom it has never met?

    python tests/benchmarks/strangers.py FOLDER

FOLDER has SQLite stores of MLflow, as *.db or *.db.gz. Each store in turn is held out whole; models
learn from all others and rank its runs. Printed is the rank correlation within each task of it, the
mean over its tasks weighted by their runs: 0 is chance, 1 the right order.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from mlflow_meta import MlflowStore
from mlflow_meta.columns import CONTEXT, columns_with, type_column
from mlflow_meta.errors import MetaError
from mlflow_meta.models import ZOO
from mlflow_meta.models.cross_validation import spearman_by_task
from mlflow_meta.space import infer
from mlflow_meta.trials import Direction

METRIC = "rmse,test_rmse,val_rmse,RMSE,validation-rmse,test-rmse"
KINDS = ("transfer", "blend", "extra_trees")
MIN_RUNS = 5  # of a store whose order is judged


def trials_of(path: Path, folder: Path, metric: str) -> pd.DataFrame:
    """A store's trials, read from an upgraded copy; its tasks bear its name."""
    name = path.name.partition(".")[0]
    copy = folder / f"{name}.db"
    content = path.read_bytes()
    copy.write_bytes(gzip.decompress(content) if path.suffix == ".gz" else content)
    upgrade = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{copy}"]
    subprocess.run(upgrade, check=True, capture_output=True)
    dataset = MlflowStore(f"sqlite:///{copy}").read()
    trials = dataset.trials(dataset.objective(metric, Direction.MINIMIZE))
    return trials.assign(store=name, task=name + " / " + trials["task"].astype(str))


def pooled(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """All trials; a column that is numbers here and texts there is typed anew, as one server's."""
    trials = pd.concat(parts, ignore_index=True)
    for column in columns_with(trials, "params.", *CONTEXT):
        if trials[column].dtype == object:
            values = trials[column].tolist()
            trials[column] = type_column([None if pd.isna(v) else str(v) for v in values])
    return trials


def held_out(kind: str, trials: pd.DataFrame, store: str) -> float:
    """Rank correlation of a store's runs with what a model of all others' says of them."""
    others, own = trials[trials["store"] != store], trials[trials["store"] == store]
    model = ZOO[kind]()
    model.learn(others, infer(others).space)
    scores = model.score(own.drop(columns="value")).mean
    tasks = own["task"].to_numpy(dtype=object)
    return spearman_by_task(tasks, own["value"].to_numpy(float), scores)


def main() -> None:
    """Hold out each store of a folder, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--metric", default=METRIC, help="names of it, of which the first counts")
    args = parser.parse_args()
    paths = sorted([*args.folder.glob("*.db"), *args.folder.glob("*.db.gz")])
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            try:
                parts.append(trials_of(path, Path(folder), args.metric))
            except MetaError as error:
                print(f"{path.name}: {error}", file=sys.stderr)
    trials = pooled(parts)
    print(f"{'store':<12} {'runs':>5} {'tasks':>5} " + " ".join(f"{kind:>12}" for kind in KINDS))
    found = []
    for store, own in trials.groupby("store"):
        if len(own) < MIN_RUNS:
            continue
        row = [held_out(kind, trials, str(store)) for kind in KINDS]
        found.append(row)
        numbers = " ".join(f"{value:>12.2f}" for value in row)
        print(f"{store:<12} {len(own):>5} {own['task'].nunique():>5} {numbers}", flush=True)
    print(f"{'mean':<24} " + " ".join(f"{value:>12.2f}" for value in np.nanmean(found, axis=0)))


if __name__ == "__main__":
    main()
