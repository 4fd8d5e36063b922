"""What the loop did, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_meta.cli import show

if TYPE_CHECKING:
    from mlflow_meta.loop import Tuning


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
