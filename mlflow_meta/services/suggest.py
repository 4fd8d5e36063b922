"""Suggest: champion + search space -> ranked SCHEDULED runs in the target experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from mlflow_meta.explain import nearest
from mlflow_meta.known import Known, brought_up_to_date, known_to, space_of, task_of
from mlflow_meta.models import MetaModel
from mlflow_meta.proposal import choose_batch, context_of, in_context, tried_on
from mlflow_meta.search import Progress, TopK
from mlflow_meta.space import SearchSpace, narrowed
from mlflow_meta.space.narrow import asked
from mlflow_meta.store import MlflowStore, Registered, batches, names, queue, registry
from mlflow_meta.trials import (
    Config,
    ConfigValue,
    Objective,
    Searched,
    Suggestion,
    Suggestions,
)

MAX_CHANGES = 6  # params in which a suggestion differs from the nearest run, in its description
MAX_SHOWN = 120  # characters of a text from the server


def suggest(  # noqa: PLR0913 - each is a choice of its own
    store: MlflowStore,
    experiment_name: str,
    *,
    n: int = 5,
    metric: str | None = None,
    task: str | None = None,
    space: SearchSpace | None = None,
    where: Sequence[str] = (),
    model_name: str | None = None,
    dry_run: bool = False,
    budget_s: float | None = None,
    rng: np.random.Generator | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Suggestions:
    """Search for the `n` most promising configurations, and schedule them as runs.

    Args:
        store: Where the champion is, and the runs go.
        experiment_name: The target experiment; it must exist, but may have no runs yet.
        n: How many.
        metric: What to improve, by the name that it has been learned under (of several spellings,
            with commas, the first); None if there is only one meta-model.
        task: Which task of the experiment, where its runs have several data sets.
        space: Where to search; None for what the target's own trials have varied, or, where they
            are too few, the trials that the champion has learned from.
        where: Conditions that narrow the space, as `space.narrowed` takes them; what is searched
            for is then the best of this part.
        model_name: The registered model, where it is not our own choice.
        dry_run: Search, and write nothing.
        budget_s: Seconds that the search of a model with a formula may take; 10 if None. It ends
            sooner where it has proven that nothing better is predicted.
        rng: Equal generators give equal suggestions, as long as the budget lasts; None for a fresh
            one.
        progress: Called with where the search stands, in words.

    Raises:
        NoModel: If no meta-model has been trained.
        NothingToLearn: If the experiment does not exist, or it is not clear which task is meant.
        BadSpace: If nothing of the space is left.
        Exhausted: If every configuration has been run or suggested.
    """
    champion = registry.champion(store, metric=metric, name=model_name)
    suggested = queue.suggested_configs(store, experiment_name)
    known = known_to(store, champion)
    trials = known.trials
    task = task or task_of(experiment_name, known)
    if space is None:
        space = space_of(known, task, champion.model, varied=[asked(c)[0] for c in where])
    tried = [*tried_on(trials, task), *(space.parse(texts) for texts in suggested)]
    if where:
        space = narrowed(space, where)
        tried = [config for config in tried if space.holds(config)]
    champion, n_unseen = brought_up_to_date(champion, known, [task])
    rng = rng or np.random.default_rng()
    configs, searched = choose_batch(
        champion.model, space, trials, task=task, n=n, tried=tried, rng=rng, budget_s=budget_s,
        progress=_told(champion.objective, progress),
    )  # fmt: skip
    context = context_of(trials, space, task)
    frame = in_context(configs, space, task, context)
    items = _rank(champion.model, champion.objective, configs, frame)
    if known.task_param and task not in {experiment_name, *trials["experiment"]}:
        # The task was made of what the program is told: it must be told again.
        items = [replace(i, config={known.task_param: task, **i.config}) for i in items]
    values = trials.loc[trials["task"] == task, "value"]
    best = champion.objective.direction.sign * float(values.min()) if len(values) else np.nan
    so_far = _so_far(best, len(values))
    searched = _in_units(searched, champion.objective) if searched else None
    origin = _origin(champion, n_unseen, searched)

    def described(item: Suggestion) -> tuple[str, dict[str, str]]:
        alike = nearest(item.config, trials, space, task=task, k=1)
        close = _nearest(alike, known, task, champion.objective)
        near = {names.NEAREST_RUN: str(alike["run_id"][0])} if len(alike) else {}
        text = _note(item, champion, experiment_name, task, f"{so_far}{close}", origin)
        return text, {**_lineage(champion, task), **near}

    run_ids, view = (
        ([], "")
        if dry_run
        else batches.schedule(
            store, experiment_name, items, champion.objective, described, space.names
        )
    )
    return Suggestions(
        items=items,
        run_ids=run_ids,
        task=task,
        tasks_by=champion.tasks_by,
        objective=champion.objective,
        best_so_far=best,
        model=f"{champion.name} v{champion.version}",
        view=view,
        never_logged=[n for n in space.names if f"params.{n}" not in trials],
        n_unseen=n_unseen,
        has_signal=champion.model.has_signal,
        searched=searched,
    )


def _rank(
    model: MetaModel, objective: Objective, configs: Sequence[Config], frame: pd.DataFrame
) -> list[Suggestion]:
    predicted = model.predict(frame)
    low, high = model.interval(frame, 0.8)
    sign = objective.direction.sign
    if sign < 0:
        low, high = high, low
    return [
        Suggestion(
            rank=i + 1,
            config=config,
            mean=float(sign * predicted.mean[i]),
            std=float(predicted.std[i]),
            low=float(sign * low[i]),
            high=float(sign * high[i]),
        )
        for i, config in enumerate(configs)
    ]


def _in_units(searched: Searched, objective: Objective) -> Searched:
    """What was found out in values to be minimised, as metrics."""
    sign = objective.direction.sign
    return replace(searched, best=sign * searched.best, bound=sign * searched.bound)


def _told(objective: Objective, progress: Callable[[str], None]) -> Progress:
    """Where a search stands, in words: incumbent, bound, gap and pace."""
    sign = objective.direction.sign

    def told(known: TopK) -> None:
        said = [f"{known.n_assessed / max(known.seconds, 1e-9):.1e} configurations/s"]
        if len(known.values):
            said.insert(0, f"best {sign * known.values[0]:.5g}")
        if len(known.values) and np.isfinite(known.bound):
            said.insert(1, f"none beyond {sign * known.bound:.5g}, gap {known.gap:.2g}")
        progress(f"searching: {', '.join(said)}")

    return told


def _lineage(champion: Registered, task: str) -> dict[str, str]:
    return {
        names.MODEL_VERSION: f"{champion.name}/{champion.version}",
        names.HARVEST_RUN: champion.harvest_run_id,
        names.TASK: task,
    }


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
    return batches.note(
        item,
        experiment_name,
        title=f"Suggestion {item.rank} for {task}",
        said=f"Expected {metric}: **{item.mean:.5g}**, with 80% probability between "
        f"{item.low:.5g} and {item.high:.5g} ({champion.objective.direction.value}). {so_far}",
        origin=origin,
    )
