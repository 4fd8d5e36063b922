"""What cron's commands have done, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlflow_meta import shown
from mlflow_meta.cli import show, show_training
from mlflow_meta.cli.terminal import echo

if TYPE_CHECKING:
    from mlflow_meta.loop import Cycle
    from mlflow_meta.services.monitor import Monitored
    from mlflow_meta.services.promote import Promotion


def cycle_data(done: Cycle) -> dict[str, Any]:
    """What a cycle did."""
    training, promotion, suggestions = done.training, done.promotion, done.suggestions
    return {
        "harvest_run_id": done.harvest.run_id,
        "n_trials": done.harvest.n_trials,
        "n_read": done.harvest.n_read,
        "monitored": [monitored_data(seen) for seen in done.monitored],
        "promotion": promotion_data(promotion) if promotion else None,
        "version": training.version if training else None,
        "champion": training.champion if training else promotion.champion if promotion else None,
        "verdict": training.decision.verdict.value if training else None,
        "n_waiting_before": done.n_waiting,
        "run_ids": list(suggestions.run_ids) if suggestions else [],
        "is_repeated": bool(suggestions and suggestions.is_repeated),
        "remarks": [*done.remarks, *(suggestions.remarks if suggestions else ())],
    }


def cycle(done: Cycle) -> None:
    """What a cycle did, step by step."""
    echo(f"Harvested {done.harvest.n_trials} runs, {done.harvest.n_read} read anew.")
    monitored(done.monitored)
    if done.promotion:
        promotion(done.promotion)
    if trained := done.training:
        echo(
            f"Trained {trained.model_name} version {trained.version} on {trained.n_trials} runs, "
            f"{show_training.decision(trained.decision)}."
        )
    if done.suggestions:
        show.suggestions(done.suggestions)
        if done.suggestions.is_repeated:
            echo("These were suggested before, and nothing was learned since: none was scheduled.")
        else:
            beside = f", beside {done.n_waiting} that waited already" if done.n_waiting else ""
            echo(f"Scheduled {show.runs(len(done.suggestions.run_ids))}{beside}.")
    of_suggestions = done.suggestions.remarks if done.suggestions else ()
    for remark in (*done.remarks, *of_suggestions):
        echo(remark, err=True)


def promotion_data(done: Promotion) -> dict[str, Any]:
    """Which version is the champion, and why."""
    return {
        "model_name": done.model_name,
        "before": done.before,
        "champion": done.champion,
        "n_later": done.n_later,
        "coverage": done.coverage,
        "has_drifted": done.has_drifted,
        "verdicts": {v: decision.verdict.value for v, decision in done.decisions.items()},
    }


def promotion(done: Promotion) -> None:
    """Which version is the champion, and why."""
    said = f"Champion of {done.model_name}: version {done.before}"
    if done.n_later:
        said += f", {show.runs(done.n_later)} since; its 80% intervals hold {done.coverage:.0%} now"
    if done.has_drifted:
        said += "; it has drifted"
    echo(f"{said}.")
    for version, decision in done.decisions.items():
        echo(f"Version {version}: {show_training.decision(decision)}.")
    if done.has_drifted and done.champion == done.before:
        echo("No other version does better: train a new one.", err=True)


def monitored_data(seen: Monitored) -> dict[str, Any]:
    """What suggestions have brought."""
    last = seen.course.iloc[-1].to_dict() if len(seen.course) else {}
    told = ("coverage_80", "share_better", "hours_saved", "regret")
    return {
        "experiment": seen.experiment,
        "metric": seen.objective.metric,
        "run_id": seen.run_id,
        "n_suggested": seen.n_suggested,
        "n_ended": len(seen.course),
        "n_new": seen.n_new,
        **{name: float(last[name]) if last else None for name in told},
    }


def monitored(found: Sequence[Monitored]) -> None:
    """What suggestions have brought, an experiment and metric a row."""
    rows = [monitored_data(seen) for seen in found]
    if not any(row["n_ended"] for row in rows):
        echo("No suggested run has ended yet.")
        return
    columns = ["experiment", "metric", "n_suggested", "n_ended", "coverage_80", "share_better",
               "hours_saved"]  # fmt: skip
    words = ["experiment", "metric", "suggested", "ended", "in 80% interval of then",
             "beat the best", "hours saved"]  # fmt: skip
    told = [[row[name] for name in columns] for row in rows if row["n_ended"]]
    for row in told:
        hours = shown.number(float(f"{row[6]:.2g}"))
        row[4:] = [shown.share(row[4]), shown.share(row[5]), hours]
    show.table(words, told)
