"""Results as tables for people and as plain data for programs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from mlflow_meta import shown
from mlflow_meta.cli.terminal import echo, plain, say_next
from mlflow_meta.dataset import DEFAULT_TASKS
from mlflow_meta.shown import duration
from mlflow_meta.subsets import folded
from mlflow_meta.trials import DURATION

MAX_REMARKS = 8  # shown; --json has them all

if TYPE_CHECKING:
    from mlflow_meta.services.explain import Reasons
    from mlflow_meta.services.harvest import Harvest
    from mlflow_meta.trials import Objective, Suggestions

RIGHT = frozenset(
    [
        "rank",
        "takes",
        "runs",
        "varied",
        "predicted",
        "std",
        "got",
        "rmse",
        "spearman",
        "values",
        "permutation",
        "ped_anova",
    ]
)
_NO_TTY_WIDTH = 120  # columns where the output is no terminal


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on stdout; numbers to 5 digits, texts from the server as plain text."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_NO_TTY_WIDTH)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        side = "right" if name.partition(" ")[0] in RIGHT else "left"
        drawn.add_column(plain(name), justify=side)  # type: ignore[arg-type]
    for row in rows:
        drawn.add_row(*(plain(number(cell)) for cell in row))
    console.print(drawn)


def number(cell: Any) -> str:
    """A cell as text: 5 significant digits, and a dash for what is not known."""
    return shown.number(cell) if isinstance(cell, float) else str(cell)


def interval(low: float, high: float) -> str:
    """Both ends."""
    return f"{number(low)} .. {number(high)}"


def runs(n: int) -> str:
    """So many runs, in words."""
    return "1 run" if n == 1 else f"{n} runs"


def config(values: dict[str, Any]) -> str:
    """A configuration on one line."""
    return ", ".join(f"{name}={number(value)}" for name, value in values.items())


def objective(sought: Objective) -> str:
    """A metric with its other spellings, and which of its values counts."""
    aliases = f" (or {', '.join(sought.aliases)})" if sought.aliases else ""
    return f"{'the best ' if sought.at == 'best' else ''}{sought.metric}{aliases}"


def train_command(sought: Objective, tasks_by: str) -> str:
    """The command that learns an objective again."""
    words = ["mlflow-meta train", f"--metric {shlex.quote(','.join(sought.spellings))}"]
    words += [f"--direction {sought.direction.value}"]
    words += [f"--at {sought.at}"] if sought.at != "last" else []
    words += [f"--tasks-by {shlex.quote(tasks_by)}"] if tasks_by != DEFAULT_TASKS else []
    return " ".join(words)


def suggestions(found: Suggestions) -> None:
    """The ranked suggestions."""
    metric = found.objective.metric
    others = [o for o in (found.items[0].others if found.items else ()) if o != DURATION]
    has_fronts = any(s.front is not None for s in found.items)
    is_timed = any(s.duration_s is not None for s in found.items)
    table(
        [
            "rank",
            f"predicted {metric}",
            "80% interval",
            *(f"predicted {o}" for o in others),
            *["takes"] * is_timed,
            *["front"] * has_fronts,
            "configuration",
        ],
        [
            [
                s.rank,
                s.mean,
                interval(s.low, s.high),
                *(s.others[o] for o in others),
                *([_lasting(s.duration_s)] if is_timed else []),
                *([s.front] if has_fronts else []),
                config(folded(s.config)),
            ]
            for s in found.items
        ],
    )


def _lasting(duration_s: float | None) -> str:
    return "-" if duration_s is None else duration(duration_s)


def suggestions_data(found: Suggestions, price: float | None = None) -> dict[str, Any]:
    """The same for programs; `price` is of an hour."""
    seconds = found.duration_s
    run_ids: list[str | None] = [*found.run_ids] or [None] * len(found.items)
    return {
        "task": found.task,
        "tasks_by": found.tasks_by,
        **objective_data(found.objective),
        "model": found.model,
        "best_so_far": found.best_so_far,
        "duration_s": seconds,
        "cost": None if price is None or seconds is None else seconds / 3600 * price,
        "n_unseen": found.n_unseen,
        "has_signal": found.has_signal,
        "searched": {**asdict(found.searched), "gap": found.searched.gap}
        if found.searched
        else None,
        "view": found.view,
        "suggest_run_id": found.run_id,
        "is_repeated": found.is_repeated,
        "remarks": list(found.remarks),
        "avoided": list(found.avoided),
        "suggestions": [
            {
                "rank": s.rank,
                "run_id": run_id,
                "params": folded(s.config),
                "predicted": s.mean,
                "std": s.std,
                "low": s.low,
                "high": s.high,
                "duration_s": s.duration_s,
                "others": dict(s.others),
                "front": s.front,
            }
            for s, run_id in zip(found.items, run_ids, strict=True)
        ],
    }


def reasons_data(found: Reasons) -> dict[str, Any]:
    """What matters, for programs."""
    return {
        "task": found.task,
        **objective_data(found.objective),
        "model": found.model,
        "n_trials": found.n_trials,
        "has_signal": found.has_signal,
        "importance": found.importance.to_dict("records"),
        "partial_dependence": {
            name: curve.to_dict("records") for name, curve in found.curves.items()
        },
        "sentence": found.sentence,
    }


def objective_data(sought: Objective) -> dict[str, Any]:
    """An objective for programs."""
    return {
        "metric": sought.metric,
        "direction": sought.direction.value,
        "aliases": list(sought.aliases),
        "at": sought.at,
    }


def harvest(found: Harvest) -> None:
    """What a harvest brought in: a row a task, and in words what was left out."""
    dataset = found.dataset
    rows = []
    for task, trials in dataset.frame.groupby("task", sort=False):
        varied = trials.nunique()
        rows.append(
            [
                task,
                len(trials),
                sum(n > 1 for column, n in varied.items() if str(column).startswith("params.")),
                sum(n > 0 for column, n in varied.items() if str(column).startswith("metrics.")),
            ]
        )
    if rows:
        table(["task", "runs", "varied params", "metrics"], rows)
    left = ", ".join(f"{n} {reason}" for reason, n in dataset.quarantined.items())
    read = "" if found.full else f" Read {found.n_read} that are new or changed; --full reads all."
    echo(f"{found.n_trials} trials{f'; left out: {left}' if left else ''}.{read}", err=True)
    for remark in dataset.remarks[:MAX_REMARKS]:
        echo(remark, err=True)
    if len(dataset.remarks) > MAX_REMARKS:
        echo(f"... and {len(dataset.remarks) - MAX_REMARKS} more remarks: --json.", err=True)
    if not rows:
        echo(
            "Nothing to learn yet: mlflow-meta learns from finished runs that have params and a "
            "metric. Train a few, and harvest again.",
            err=True,
        )
        return
    best = next(iter(dataset.proposals()), None)
    command = best.command() if best else "mlflow-meta train --metric NAME"
    say_next(command)
