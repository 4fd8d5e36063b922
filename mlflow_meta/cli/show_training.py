"""What came of a training, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_meta.cli import show
from mlflow_meta.cli.terminal import echo

if TYPE_CHECKING:
    from mlflow_meta.models.signal import Signal
    from mlflow_meta.services.train import Training


def training(done: Training) -> None:
    """What came of a training."""
    columns = ["model", "rmse (average: 1)", "spearman", "spearman, later", "spearman, new task"]
    show.table(columns, [list(row) for row in done.table.itertuples(index=False)])
    echo(
        f"Learned to {done.objective.direction.value} {show.objective(done.objective)} from "
        f"{done.n_trials} trials of {done.n_tasks} tasks, {done.n_features} features; scores are "
        "on held-out trials."
    )
    alias = "alias champion"
    if done.champion != done.version:
        alias = f"but version {done.champion}, which could, stays champion"
    echo(f"Registered {done.model_name} version {done.version}, {alias}.")
    for remark in done.remarks:
        echo(remark, err=True)
    if not done.has_signal:
        echo(_refusal(done.signal), err=True)
    echo("Next: mlflow-meta suggest -e EXPERIMENT", err=True)


def _refusal(found: Signal) -> str:
    text = (
        f"It can't tell good from bad: on {found.n} held-out trials it does no better than chance "
        f"(p = {found.p_value:.2g}). Until more runs are known, its suggestions only cover the "
        "search space evenly. "
    )
    if not found.n_more:
        return text + (
            "Nothing says that more runs like these would help: is it the right metric, and is "
            "what decides it among the params?"
        )
    return text + f"About {found.n_more} more runs, chosen like that, may be enough."
