"""A history whose truth is known, and the registered model of it as a folder: without a server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mlflow_meta.models import ZOO
from mlflow_meta.served.packed import Packed
from mlflow_meta.space import infer
from mlflow_meta.store import model_folder
from mlflow_meta.trials import Direction, Objective


def history(n_each: int = 60, tasks: int = 4, seed: int = 0) -> pd.DataFrame:
    """Trials whose value is least at lr = 0.01, and whose duration goes with epochs and units."""
    rng = np.random.default_rng(seed)
    n = n_each * tasks
    model = rng.choice(["mlp", "tree"], n)
    is_mlp = model == "mlp"
    lr, epochs = 10 ** rng.uniform(-4, 0, n), rng.integers(1, 51, n)
    units, depth = 2 ** rng.integers(3, 9, n), rng.integers(2, 13, n)
    task = np.arange(n) // n_each
    loss = 0.1 * (np.log10(lr) + 2) ** 2 + 0.2 / epochs + np.where(is_mlp, 0.0, 0.05)
    loss += np.where(is_mlp, 0.02 * abs(np.log2(units) - 6), 0.01 * abs(depth - 6)) + 0.1
    seconds = 2.0 * epochs * np.where(is_mlp, units / 32, depth / 4) * (1 + task)
    frame = pd.DataFrame(
        {
            "run_id": [f"{i:032x}" for i in range(n)],
            "task": [f"sweep-{i}" for i in task],
            "value": (1 + task) * loss * np.exp(rng.normal(0, 0.02, n)),
            "duration_s": seconds * np.exp(rng.normal(0, 0.1, n)),
            "params.model": pd.array(model, dtype="string"),
            "params.lr": lr,
            "params.epochs": pd.array(epochs, dtype="Int64"),
            "params.units": pd.array(np.where(is_mlp, units, 0), dtype="Int64"),
            "params.depth": pd.array(np.where(is_mlp, 0, depth), dtype="Int64"),
            "params.dropout": rng.uniform(0, 0.5, n),
            "params.batch_size": pd.array(2 ** rng.integers(4, 9, n), dtype="Int64"),
            "params.nesterov": pd.array(rng.random(n) < 0.5, dtype="boolean"),
            "hardware.gpu_model": pd.array(rng.choice(["A100", "T4"], n), dtype="string"),
            "dataset.rows": pd.array(1000 * (1 + task), dtype="Int64"),
        }
    )
    frame.loc[~is_mlp, "params.units"] = pd.NA
    frame.loc[is_mlp, "params.depth"] = pd.NA
    return frame


def packed(
    trials: pd.DataFrame, kind: str, direction: Direction = Direction.MINIMIZE, metric: str = "loss"
) -> Packed:
    """A fitted meta-model of a kind; the metric is `direction.sign * value`."""
    model = ZOO[kind]()
    model.fit(trials, infer(trials).space)
    objective = Objective(metric=metric, direction=direction)
    return Packed(model=model, kind=kind, objective=objective, harvest_run_id="0" * 32)


def saved(it: Packed, trials: pd.DataFrame, folder: Path) -> Path:
    """The MLflow model of it, in a new folder within `folder`."""
    scratch = folder / f"{it.kind}-files"
    scratch.mkdir()
    made = folder / it.kind
    model_folder.save(model_folder.servable(it, trials), made, scratch)
    return made
