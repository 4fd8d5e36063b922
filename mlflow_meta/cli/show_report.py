"""A report, and what a server has to learn from, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from mlflow_meta.cli.show import config, interval, number, objective_data, table
from mlflow_meta.cli.terminal import echo
from mlflow_meta.columns import columns_with

if TYPE_CHECKING:
    from mlflow_meta.services.doctor import Examination
    from mlflow_meta.services.report import Report


def report(found: Report) -> None:
    """Suggested, predicted, got; and the best before and after."""
    metric = found.objective.metric
    rows = found.suggested
    params = columns_with(rows, "params.")
    table(
        ["rank", f"predicted {metric}", "80% interval", f"got {metric}", "status", "configuration"],
        [
            [
                row["rank"],
                row["predicted"],
                interval(row["low"], row["high"]),
                row["got"],
                row["status"],
                config(
                    {
                        c.removeprefix("params."): _shorten(row[c])
                        for c in params
                        if not pd.isna(row[c])
                    }
                ),
            ]
            for row in rows.to_dict("records")
        ],
    )


def report_data(found: Report) -> dict[str, Any]:
    """The same for programs."""
    columns = ["run_id", "name", "rank", "status", "predicted", "std", "low", "high", "got"]
    return {
        **objective_data(found.objective),
        "n_before": found.n_before,
        "best_before": found.best_before,
        "best_after": found.best_after,
        "coverage": found.coverage,
        "suggested": found.suggested[columns].to_dict("records"),
    }


def balance(found: Report) -> str:
    """The result in one sentence."""
    metric = found.objective.metric
    done = int(found.suggested["got"].notna().sum())
    inside = "" if pd.isna(found.coverage) else f"; {found.coverage:.0%} inside their 80% interval"
    return (
        f"Best {metric} of {found.n_before} runs before: {number(found.best_before)}; after "
        f"{done} suggested ones: {number(found.best_after)}{inside}."
    )


def examination(found: Examination) -> None:
    """What the doctor found."""
    table(
        ["", "check", "finding"],
        [["ok" if c.ok else "!!", c.name, c.finding] for c in found.checks],
    )
    if len(found.experiments):
        table(
            ["experiment", "runs", "varied params", "metrics (runs)", "next step"],
            [
                [r["experiment"], r["runs"], r["varied"], r["metrics"], r["advice"]]
                for r in found.experiments.to_dict("records")
            ],
        )
    for best in found.proposals[:1]:
        echo(f"Next: mlflow-meta harvest, then {best.command()} ({best.coverage})", err=True)


def examination_data(found: Examination) -> dict[str, Any]:
    """The same for programs."""
    return {
        "ok": found.ok,
        "checks": [{"name": c.name, "ok": c.ok, "finding": c.finding} for c in found.checks],
        "experiments": found.experiments.to_dict("records"),
        "quarantined": found.quarantined,
        "proposals": [
            {
                "metrics": list(p.spellings),
                "direction": p.direction.value if p.direction else None,
                "n_runs": p.n_runs,
                "n_experiments": p.n_experiments,
                "command": p.command(),
            }
            for p in found.proposals
        ],
    }


def _shorten(text: Any) -> Any:
    try:
        return float(text) if "." in str(text) or "e" in str(text) else text
    except ValueError:
        return text
