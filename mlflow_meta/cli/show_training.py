"""What came of a training, for people."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from mlflow_meta.cli import show
from mlflow_meta.cli.terminal import echo, say_next

if TYPE_CHECKING:
    from mlflow_meta.models.signal import Signal
    from mlflow_meta.promotion import Decision
    from mlflow_meta.services.train import Training


def training(done: Training) -> None:
    """What came of a training."""
    columns = ["model", "rmse (average: 1)", "spearman", "spearman, later", "spearman, new task"]
    show.table(columns, [list(row) for row in done.table.itertuples(index=False)])
    echo(
        f"Learned to {done.objective.direction.value} {show.objective(done.objective)} from "
        f"{done.n_trials} trials of {done.n_tasks} task{'s' * (done.n_tasks != 1)}, "
        f"{done.n_features} features; scores are on held-out trials."
    )
    echo(f"Registered {done.model_name} version {done.version}, {decision(done.decision)}.")
    if done.champion != done.version:
        echo(
            f"Version {done.champion} stays the champion. To have this one all the same: "
            f"mlflow-meta promote --model-name {shlex.quote(done.model_name)} "
            f"--version {done.version}",
            err=True,
        )
    for remark in done.remarks:
        echo(remark, err=True)
    if not done.has_signal:
        echo(_refusal(done.signal), err=True)
    say_next("mlflow-meta suggest -e EXPERIMENT")


def decision(done: Decision) -> str:
    """What became of a version, and by which numbers."""
    found = done.comparison
    if found is None or found.n == 0:
        return done.verdict.value
    how = "smaller" if found.gain >= 0 else "larger"
    sure = f", surely by {found.gain_low:.2g}" if found.gain_low > 0 else ""
    return (
        f"{done.verdict.value} (error {how} by {abs(found.gain):.2g}{sure}, on "
        f"{show.runs(found.n)}; {found.coverage:.0%} of them in its 80% intervals)"
    )


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
