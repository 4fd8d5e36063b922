"""What people read of a suggestion: why it was made, and what is near to it."""

from __future__ import annotations

import pandas as pd

from mlflow_meta.explain import nearest
from mlflow_meta.known import Known
from mlflow_meta.services.suggest.search import Asked, Found
from mlflow_meta.store import Registered, names
from mlflow_meta.store.plans import Item
from mlflow_meta.store.suggested import item, note
from mlflow_meta.trials import (
    ConfigValue,
    Objective,
    Searched,
    Suggestion,
)

MAX_CHANGES = 6  # params in which a suggestion differs from the nearest run, in its description
MAX_SHOWN = 120  # characters of a text from the server


def lineage_tags(champion: Registered) -> dict[str, str]:
    """Tags that say what has suggested it."""
    return {
        names.MODEL_VERSION: f"{champion.name}/{champion.version}",
        names.HARVEST_RUN: champion.harvest_run_id,
    }


def items_of(it: Asked, found: Found) -> list[Item]:
    """The suggestions as runs to be, with what people read of each."""
    champion, trials = found.champion, it.known.trials
    so_far = _so_far(found.best_so_far, found.n_trials)
    origin = _origin(champion, found.n_unseen, found.searched)
    items = []
    for suggestion in found.items:
        alike = nearest(suggestion.config, trials, it.space, task=it.task, k=1)
        close = _nearest(alike, it.known, it.task, champion.objective)
        near = {names.NEAREST_RUN: str(alike["run_id"][0])} if len(alike) else {}
        text = _note(suggestion, champion, it.experiment_name, it.task, f"{so_far}{close}", origin)
        tags = {**lineage_tags(champion), **near}
        items.append(item(suggestion, champion.objective, it.task, note=text, tags=tags))
    return items


def _note(
    item: Suggestion,
    champion: Registered,
    experiment_name: str,
    task: str,
    so_far: str,
    origin: str,
) -> str:
    """The run's description, which the UI shows as Markdown."""
    metric = champion.objective.metric
    return note(
        item,
        experiment_name,
        title=f"Suggestion {item.rank} for {task}",
        said=f"Expected {metric}: **{item.mean:.5g}**, with 80% probability between "
        f"{item.low:.5g} and {item.high:.5g} ({champion.objective.direction.value}). {so_far}",
        origin=origin,
    )


def _origin(champion: Registered, n_unseen: int, searched: Searched | None) -> str:
    """What has predicted this, and how it was searched."""
    updated = f", updated with {n_unseen} newer runs" if n_unseen else ""
    version = f"`{champion.name}` version {champion.version} ({champion.kind})"
    return f"Predicted by {version}{updated}. {searched.sentence if searched else ''}".strip()


def _so_far(best: float, n_trials: int) -> str:
    if n_trials:
        return f"The best of {n_trials} runs before has {best:.5g}."
    return "No run of this task was known: the numbers are on the scale of the other tasks."


def _nearest(alike: pd.DataFrame, known: Known, task: str, objective: Objective) -> str:
    """The nearest past run as a sentence, with a link that works in MLflow's UI; or nothing."""
    if alike.empty:
        return ""
    row = alike.iloc[0]
    run_id, value = str(row["run_id"]), objective.direction.sign * float(row["value"])
    # Relative, so that it holds behind any address of the server.
    link = f"[{run_id[:8]}](#/experiments/{known.experiment_ids[run_id]}/runs/{run_id})"
    changes = [
        _code(f"{name} {_shown(theirs)} -> {_shown(ours)}")
        for name, (theirs, ours) in row["differs"].items()
    ]
    more = f" and {len(changes) - MAX_CHANGES} more" if len(changes) > MAX_CHANGES else ""
    changed = f" ({', '.join(changes[:MAX_CHANGES])}{more})" if changes else " (the same params)"
    other = "" if str(row["task"]) == task else f" on another task, {_code(str(row['task']))},"
    return f" Nearest of what was run{other}: {link}{changed} got {value:.5g}."


def _shown(value: ConfigValue | None) -> str:
    if value is None:
        return "unset"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _code(text: str) -> str:
    """A text from the server as Markdown's code, out of which it can't break."""
    plain = " ".join(text.replace("`", "'").split())
    return f"`{plain[:MAX_SHOWN]}`"
