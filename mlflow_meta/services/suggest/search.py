"""Searching for suggestions, in a way that can be repeated bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mlflow_meta.columns import columns_with
from mlflow_meta.effort import Effort, Limits
from mlflow_meta.errors import NothingToLearn, TooLittle
from mlflow_meta.known import Known, brought_up_to_date
from mlflow_meta.models import MetaModel
from mlflow_meta.models.durations import Durations
from mlflow_meta.models.failures import MIN_RUNS, Failures, learn_failures
from mlflow_meta.proposal import choose_batch, choose_front, context_of, in_context, tried_on
from mlflow_meta.search import Progress, Spread, TopK
from mlflow_meta.services.suggest.others import Other, fronts_among, joint, others_of
from mlflow_meta.space import SearchSpace, narrowed
from mlflow_meta.store import Registered
from mlflow_meta.trials import (
    Config,
    Objective,
    Searched,
    Suggestion,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A search for suggestions, as it can be repeated.

    Attributes:
        experiment_name: Where the runs go.
        champion: What predicts.
        known: What it is told of the trials.
        task: What is suggested for.
        n: How many.
        space: Where, as it was given or inferred.
        where: What narrows it.
        seed: Of the random numbers.
        limits: See `suggest`.
        also: See `suggest`.
        search_s: See `suggest`.
        suggested: What was suggested before, as texts.
        remarks: On people's reasons for rejections, as sentences.
    """

    experiment_name: str
    champion: Registered
    known: Known
    task: str
    n: int
    space: SearchSpace
    where: Sequence[str]
    seed: int
    limits: Limits
    also: Sequence[str]
    search_s: float | None
    suggested: Sequence[Mapping[str, str]]
    remarks: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of it.

    Attributes:
        items: The suggestions, the best first.
        searched: What the search has found out, in the metric's units.
        n_unseen: How many trials the champion was updated with before.
        best_so_far: The best metric among the task's trials; nan if it has none.
        n_trials: How many these are.
        champion: As it was updated.
        failures: What runs that failed have taught.
        chances: Of each suggestion, its chance to fail.
        others: The further objectives.
    """

    items: Sequence[Suggestion]
    searched: Searched | None
    n_unseen: int
    best_so_far: float
    n_trials: int
    champion: Registered
    failures: Failures
    chances: Sequence[float]
    others: Sequence[Other]


def search(it: Asked, spread: Spread | None, progress: Callable[[str], None]) -> Found:
    """The best configurations for what is asked; equal questions have equal answers."""
    space, task, trials = it.space, it.task, it.known.trials
    tried = [*tried_on(trials, task), *(space.parse(texts) for texts in it.suggested)]
    if it.where:
        space = narrowed(space, it.where)
        tried = [config for config in tried if space.holds(config)]
    champion, n_unseen = brought_up_to_date(it.champion, it.known, [task])
    rng = np.random.default_rng(it.seed)
    durations = _durations(it)
    failures = _failures(it)
    others = others_of(it.also, it.known)
    searched = None
    if others:
        models = [joint(champion.model, trials, space)]
        models += [other.model(space) for other in others]
        configs = choose_front(
            models, space, [trials, *(other.trials for other in others)], task=task, n=it.n,
            tried=tried, rng=rng, given=it.limits.hardware, failures=failures,
        )  # fmt: skip
    else:
        effort = None
        if durations is not None and it.limits.is_any:
            effort = Effort(limits=it.limits, durations=durations)
        configs, searched = choose_batch(
            champion.model, space, trials, task=task, n=it.n, tried=tried, rng=rng,
            given=it.limits.hardware, effort=effort, failures=failures,
            search_s=it.search_s, spread=spread, progress=_told(champion.objective, progress),
        )  # fmt: skip
    context = {**context_of(trials, space, task), **it.limits.hardware}
    frame = in_context(configs, space, task, context)
    items = _rank(champion.model, champion.objective, configs, frame)
    if durations is not None:
        lasting = durations.seconds(frame).tolist()
        items = [replace(i, duration_s=s) for i, s in zip(items, lasting, strict=True)]
    if others:
        items = _on_fronts(items, frame, trials[trials["task"] == task], others, models)
    if it.known.task_param and task not in {it.experiment_name, *trials["experiment"]}:
        # The task was made of what the program is told: it must be told again.
        items = [replace(i, config={it.known.task_param: task, **i.config}) for i in items]
    values = trials.loc[trials["task"] == task, "value"]
    return Found(
        items=items,
        searched=_in_units(searched, champion.objective) if searched else None,
        n_unseen=n_unseen,
        best_so_far=champion.objective.direction.sign * float(values.min())
        if len(values)
        else np.nan,
        n_trials=len(values),
        champion=champion,
        failures=failures,
        chances=failures.chance(frame).tolist(),
        others=others,
    )


def check_hardware(hardware: Mapping[str, object], trials: pd.DataFrame) -> None:
    """Raise NothingToLearn if hardware is supposed that no trial says anything of."""
    for column, value in hardware.items():
        name = column.removeprefix("hardware.")
        seen = trials[column].dropna() if column in trials else pd.Series(dtype=object)
        if seen.empty:
            there = [c.removeprefix("hardware.") for c in columns_with(trials, "hardware.")]
            raise NothingToLearn(
                f"No run says its {name}, so nothing tells what {value!r} would change. "
                f"What runs say of their hardware: {', '.join(there) or 'nothing'}."
            )
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number and value not in set(seen):
            raise NothingToLearn(
                f"No run has the {name} {value!r}, so nothing tells how it would do. "
                f"Runs have {', '.join(sorted(map(repr, set(seen))))}."
            )


def _durations(it: Asked) -> Durations | None:
    """What tells how long runs will take; None where that is not asked, and can't be told."""
    try:
        return Durations.learn(it.known.trials, it.space)
    except TooLittle:
        if it.limits.is_any:
            raise
        return None


def _failures(it: Asked) -> Failures:
    """What has failed on the task or, where that is too little to learn from, on all."""
    finished, failed = it.known.trials, it.known.failures
    own, own_failed = finished[finished["task"] == it.task], failed[failed["task"] == it.task]
    if min(len(own), len(own_failed)) >= MIN_RUNS:
        finished, failed = own, own_failed
    return learn_failures(finished, failed, it.space)


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


def _on_fronts(
    items: Sequence[Suggestion],
    frame: pd.DataFrame,
    own: pd.DataFrame,
    others: Sequence[Other],
    models: Sequence[MetaModel],
) -> list[Suggestion]:
    """The suggestions with what is expected of their further objectives, and their fronts."""
    predicted = np.column_stack([model.predict(frame).mean for model in models])
    places = fronts_among(predicted, own, others)
    told = [
        {
            other.name: float(other.direction.sign * value)
            for other, value in zip(others, row[1:], strict=True)
        }
        for row in predicted
    ]
    return [
        replace(item, others=values, front=front)
        for item, values, front in zip(items, told, places, strict=True)
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
