"""What suggestions rest on, and what the loop did, for people and for programs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from mlflow_meta.cli import show

if TYPE_CHECKING:
    from mlflow_meta.loop import Tuning
    from mlflow_meta.trials import Searched, Suggestions

UNSEEN = 1e-6  # share of a prediction that its shown digits do not tell


def tuning_data(done: Tuning) -> dict[str, Any]:
    """The report, and what each round has learned and trained."""
    return {
        **show.report_data(done.report),
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


def grounds(found: Suggestions) -> None:
    """What suggestions rest on, and what is to be known about it."""
    best = show.number(found.best_so_far)
    if not found.model:
        click.echo(
            "Chosen to cover the search space evenly; predicted is what runs have got so far. "
            f"Best so far: {best}."
        )
    else:
        click.echo(
            f"Predicted by {found.model} for {found.task}, {found.objective.direction.value}; best "
            f"so far: {best}."
        )
    if found.searched:
        click.echo(search(found.searched))
    if math.isnan(found.best_so_far):
        click.echo(
            f"No run of {found.task} has {found.objective.metric} yet: the numbers are on the "
            "scale of other tasks, and rough.",
            err=True,
        )
    if found.never_logged:
        click.echo(
            f"Nothing is known of {', '.join(found.never_logged)}: no run has logged it, so its "
            "values are as good as random.",
            err=True,
        )
    if found.n_unseen:
        click.echo(f"Updated with {found.n_unseen} newer runs before the search.", err=True)
    if found.model and not found.has_signal:
        click.echo(
            "It can't tell good from bad, so these only cover the space evenly. With more runs: "
            f"{show.train_command(found.objective, found.tasks_by)}",
            err=True,
        )


def search(done: Searched) -> str:
    """What the search for the best prediction did, and what it has proven, in one sentence."""
    took = f"in {done.seconds:.1f} s" + (", stopped by Ctrl-C" if done.is_interrupted else "")
    n = many(done.n_configs)
    if done.n_assessed == done.n_configs and done.engine == "local":
        return f"Predicted all {n} configurations {took}."
    if done.engine == "local":
        return (
            f"Predicted {many(done.n_assessed)} of {n} configurations {took}, broad to narrow: "
            "this model has no formula by which the others could be ruled out."
        )
    if math.isinf(done.gap):
        return f"Predicted {many(done.n_assessed)} of {n} configurations {took}; nothing is proven."
    so_many = n if done.n_assessed == done.n_configs else f"{many(done.n_assessed)} of {n}"
    said = f"Assessed {so_many} configurations {took}: none is predicted better than"
    if done.gap <= UNSEEN * abs(done.best):
        return f"{said} suggestion 1."
    return f"{said} {show.number(done.best)} by more than {done.gap:.2g}."


def is_interrupted(found: Suggestions) -> bool:
    """Whether Ctrl-C has ended the search."""
    return found.searched is not None and found.searched.is_interrupted


def many(n: float) -> str:
    """A number of configurations: whole where it can be read, else as a power of ten."""
    if math.isinf(n):
        return "infinitely many"
    return f"{n:,.0f}" if n < 1e7 else f"{float(n):.1e}".replace("e+", "e")
