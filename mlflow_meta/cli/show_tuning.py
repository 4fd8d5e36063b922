"""What suggestions rest on, and what the loop did, for people and for programs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlflow_meta import shown
from mlflow_meta.cli import show, show_report
from mlflow_meta.cli.terminal import echo

if TYPE_CHECKING:
    from mlflow_meta.loop import Tuning
    from mlflow_meta.trials import Suggestions


def tuning_data(done: Tuning) -> dict[str, Any]:
    """The report, and what each round has learned and trained."""
    return {
        **show_report.report_data(done.report),
        "rounds": [
            {
                "model_name": turn.learned.model_name,
                "version": turn.learned.version,
                "updated_from": turn.updated_from,
                "run_ids": [execution.run_id for execution in turn.executions],
            }
            for turn in done.rounds
        ],
    }


def versions(done: Tuning) -> str:
    """What became of the meta-model, in one sentence."""
    how = ["updated" if turn.updated_from else "trained" for turn in done.rounds]
    last = done.rounds[-1].suggestions.model
    return f"Suggested by {last} in the end; it was {', then '.join(how)}."


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 0.1 else f"{amount:.2g}"


def grounds(found: Suggestions, price: float | None = None) -> None:
    """What suggestions rest on, and what is to be known about it; `price` is of an hour."""
    best = show.number(found.best_so_far)
    if not found.model:
        echo(
            "Chosen to cover the search space evenly; predicted is what runs have got so far. "
            f"Best so far: {best}."
        )
    else:
        echo(
            f"Predicted by {found.model} for {found.task}, {found.objective.direction.value}; best "
            f"so far: {best}."
        )
    if found.duration_s is not None:
        cost = "" if price is None else f", and to cost {_money(found.duration_s / 3600 * price)}"
        how_many = f"All {len(found.items)} are" if len(found.items) > 1 else "It is"
        echo(f"{how_many} expected to take {shown.duration(found.duration_s)}{cost}.")
    if found.searched:
        echo(found.searched.sentence)
    if math.isnan(found.best_so_far):
        echo(
            f"No run of {found.task} has {found.objective.metric} yet: the numbers are on the "
            "scale of other tasks, and rough.",
            err=True,
        )
    for remark in found.remarks:
        echo(remark, err=True)
    if found.avoided:
        echo(f"Avoided: {', '.join(found.avoided)}.")
    if found.never_logged:
        echo(
            f"Nothing is known of {', '.join(found.never_logged)}: no run has logged it, so its "
            "values are as good as random.",
            err=True,
        )
    if found.n_unseen:
        echo(f"Updated with {found.n_unseen} newer runs before the search.", err=True)
    if found.model and not found.has_signal:
        echo(
            "It can't tell good from bad, so these only cover the space evenly. With more runs: "
            f"{show.train_command(found.objective, found.tasks_by)}",
            err=True,
        )
