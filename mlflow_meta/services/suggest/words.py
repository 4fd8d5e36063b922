"""What people read of a suggestion: why it was made, and what is near to it."""

from __future__ import annotations

from statistics import NormalDist

import pandas as pd

from mlflow_meta import shown
from mlflow_meta.explain import nearest
from mlflow_meta.known import Known
from mlflow_meta.services.suggest.search import Asked, Found
from mlflow_meta.store import Registered, names
from mlflow_meta.store.plans import Item
from mlflow_meta.store.suggested import item, note
from mlflow_meta.trials import (
    DURATION,
    ConfigValue,
    Objective,
    Searched,
    Suggestion,
)

MAX_CHANGES = 6  # params in which a suggestion differs from the nearest run, in its description


def lineage_tags(champion: Registered) -> dict[str, str]:
    """Tags that say what has suggested it."""
    return {
        names.MODEL_VERSION: f"{champion.name}/{champion.version}",
        names.HARVEST_RUN: champion.harvest_run_id,
    }


def items_of(it: Asked, found: Found) -> list[Item]:
    """The suggestions as runs to be, with what people read of each."""
    champion, trials = found.champion, it.known.trials
    origin = _origin(champion, found.n_unseen, found.searched)
    items = []
    for suggestion, chance in zip(found.items, found.chances, strict=True):
        alike = nearest(suggestion.config, trials, it.space, task=it.task, k=1)
        near = {names.NEAREST_RUN: str(alike["run_id"][0])} if len(alike) else {}
        text = note(
            suggestion,
            it.experiment_name,
            title=f"Suggestion {suggestion.rank} for {shown.code(it.task)}",
            said=[
                _expected(suggestion, champion.objective),
                _lasting(suggestion),
                _on_front(suggestion),
                _why(suggestion, found),
                _risk(chance, found),
                _nearest(alike, it.known, it.task, champion.objective),
            ],
            origin=origin,
        )
        tags = {**lineage_tags(champion), **near}
        items.append(item(suggestion, champion.objective, it.task, note=text, tags=tags))
    return items


def _expected(item: Suggestion, objective: Objective) -> str:
    return (
        f"Expected {shown.code(objective.metric)} ({objective.direction.value}): "
        f"**{shown.number(item.mean)}**, with 80% probability between {shown.number(item.low)} and "
        f"{shown.number(item.high)}."
    )


def _lasting(item: Suggestion) -> str:
    if item.duration_s is None:
        return ""
    return f"It is expected to train for **{shown.duration(item.duration_s)}**."


def _on_front(item: Suggestion) -> str:
    if item.front is None:
        return ""
    told = ", ".join(f"{shown.code(n)} {_told(n, value)}" for n, value in item.others.items())
    what = "not beaten in all of these" if item.front == 1 else f"on Pareto front {item.front}"
    return f"Expected too: {told}. Among all runs of the task it would be {what}."


def _told(name: str, value: float) -> str:
    return shown.duration(value) if name == DURATION else shown.number(value)


def _why(item: Suggestion, found: Found) -> str:
    """What speaks for it: the best before, and the chance of a normal distribution to beat that."""
    if not found.n_trials:
        return "No run of this task was known: the numbers are on the scale of the other tasks."
    so_far = f"The best of {found.n_trials} runs before has {shown.number(found.best_so_far)}"
    if item.std <= 0:
        return f"{so_far}."
    gain = found.champion.objective.direction.sign * (found.best_so_far - item.mean)
    chance = NormalDist().cdf(gain / item.std)
    said = (
        f"about {chance:.0%}" if 0.01 <= chance <= 0.99 else ("under 1%", "over 99%")[chance > 0.5]
    )
    return f"{so_far}; this one beats it with a chance of {said}, says the meta-model."


def _risk(chance: float, found: Found) -> str:
    """How likely it fails, where that is more than usual; or nothing."""
    if not found.failures.is_notable(chance):
        return ""
    return (
        f"**It may fail**: with a chance of about {chance:.0%}, say the runs that failed; of all "
        f"runs {found.failures.base:.0%} did."
    )


def _origin(champion: Registered, n_unseen: int, searched: Searched | None) -> str:
    """What has predicted this, and how it was searched."""
    updated = f", updated with {n_unseen} newer runs" if n_unseen else ""
    version = f"{shown.code(champion.name)} version {champion.version} ({champion.kind})"
    return f"Predicted by {version}{updated}. {searched.sentence if searched else ''}".strip()


def _nearest(alike: pd.DataFrame, known: Known, task: str, objective: Objective) -> str:
    """The nearest past run as a sentence, with a link that works in MLflow's UI; or nothing."""
    if alike.empty:
        return ""
    row = alike.iloc[0]
    run_id, value = str(row["run_id"]), objective.direction.sign * float(row["value"])
    # Relative, so that it holds behind any address of the server.
    link = f"[{run_id[:8]}](#/experiments/{known.experiment_ids[run_id]}/runs/{run_id})"
    changes = [
        shown.code(f"{name} {_shown(theirs)} -> {_shown(ours)}")
        for name, (theirs, ours) in row["differs"].items()
    ]
    more = f" and {len(changes) - MAX_CHANGES} more" if len(changes) > MAX_CHANGES else ""
    changed = f" ({', '.join(changes[:MAX_CHANGES])}{more})" if changes else " (the same params)"
    other = "" if str(row["task"]) == task else f" on another task, {shown.code(str(row['task']))},"
    return f"Nearest of what was run{other}: {link}{changed} got {shown.number(value)}."


def _shown(value: ConfigValue | None) -> str:
    if value is None:
        return "unset"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
