"""Promotion: a new version becomes the champion where it predicts later runs better.

A version of a registered meta-model is a *challenger* until then. Both predict the same later runs,
which the champion has not learned from. The challenger has; so it is learned anew for them, without
the runs that began at the same time or later: time goes forward only.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlflow_meta.errors import Damaged, NoModel, NothingToLearn, StoreRefused, TooLittle
from mlflow_meta.gate import LEVEL, MIN_LATER, Comparison, Judged, Verdict, compare
from mlflow_meta.models import MetaModel
from mlflow_meta.models.meta_model import scales_of
from mlflow_meta.models.scale import TaskScale
from mlflow_meta.served.packed import Packed
from mlflow_meta.store import MlflowStore, Registered, names, registry

N_ORIGINS = 3  # points in time from which a challenger predicts what came next


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What became of a challenger.

    Attributes:
        verdict: Whether it was promoted, and why.
        champion: The version that was the champion before; None if there was none.
        comparison: With it, on later runs; None where these do not decide.
    """

    verdict: Verdict
    champion: str | None
    comparison: Comparison | None = None

    @property
    def tags(self) -> dict[str, str]:
        """For the version, so that people can read it in the registry."""
        found = self.comparison
        numbers = {} if found is None else {
            "n_later": str(found.n),
            "gain": f"{found.gain:.6g}",
            "gain_low": f"{found.gain_low:.6g}",
            "coverage_later": f"{found.coverage:.6g}",
        }  # fmt: skip
        if self.champion:
            numbers["champion_before"] = self.champion
        said = {f"{names.GATE}.{k}": v for k, v in numbers.items() if v != "nan"}
        return {names.GATE: self.verdict.value, **said}


def carry_out(store: MlflowStore, name: str, version: str, decision: Decision) -> None:
    """Write on a version what became of it, and make it the champion if it is to be."""
    registry.tag_version(store, name, version, decision.tags)
    if decision.verdict.is_promoted:
        registry.promote(store, name, version)


def decide(
    store: MlflowStore, name: str, challenger: Packed, trials: pd.DataFrame, *, by_hand: bool
) -> Decision:
    """Whether a meta-model that was just trained is to be the champion; writes nothing.

    Args:
        store: Where the champion is.
        name: The registered model.
        challenger: The meta-model.
        trials: What it has learned from, in the order of their start.
        by_hand: Promote it whatever the later runs say.
    """
    try:
        champion = registry.champion(store, name=name)
    except NoModel:
        return Decision(verdict=Verdict.FIRST, champion=None)
    except Damaged:
        _, number = registry.champion_number(store, name=name)
        return Decision(verdict=Verdict.DAMAGED, champion=number)
    version = champion.version
    if by_hand:
        return Decision(verdict=Verdict.BY_HAND, champion=version)
    if (champion.objective, champion.tasks_by) != (challenger.objective, challenger.tasks_by):
        return Decision(verdict=Verdict.OTHER_QUESTION, champion=version)
    if not champion.model.has_signal:
        tells = challenger.model.has_signal
        return Decision(verdict=Verdict.TELLS if tells else Verdict.NEWER, champion=version)
    if not challenger.model.has_signal:
        return Decision(verdict=Verdict.NO_SIGNAL, champion=version)
    later = is_later(store, champion, trials)
    found = forward(champion.model, challenger.model, trials, later)
    return Decision(verdict=found.verdict, champion=version, comparison=found)


def is_later(store: MlflowStore, champion: Registered, trials: pd.DataFrame) -> Any:
    """Which of `trials` a version has not learned from, `(n,)` bool."""
    seen: set[str] = set()
    with suppress(NothingToLearn, StoreRefused):  # somebody has deleted it
        _, learned = store.dataset(champion.harvest_run_id)
        seen = set(learned.frame["run_id"])
    return ~trials["run_id"].isin(seen).to_numpy()


def forward(
    champion: MetaModel, challenger: MetaModel, trials: pd.DataFrame, later: Any
) -> Comparison:
    """Compare on the later trials, which the challenger sees only as time goes on.

    Args:
        champion: As it is registered; it has learned from none of the later trials.
        challenger: Which may have learned from all.
        trials: In the order of their start.
        later: `(n,)` bool, which of them are later.
    """
    rows = trials[later]
    scales = scales_of(trials)
    ours: list[Judged] = []
    if len(rows) >= MIN_LATER:
        for block in np.array_split(np.arange(len(rows)), N_ORIGINS):
            unknown = rows["run_id"].iloc[block[0] :]
            with suppress(TooLittle):
                then = challenger.relearned(trials[~trials["run_id"].isin(unknown)])
                ours.append(judged(then, rows.iloc[block], scales))
    both = _joined(ours)
    rows = rows if len(both.errors) == len(rows) else rows.iloc[:0]
    both = both if len(rows) else _joined([])
    return compare(judged(champion, rows, scales), both, np.random.default_rng(0))


def judged(model: MetaModel, rows: pd.DataFrame, scales: Mapping[str, TaskScale]) -> Judged:
    """How a model predicts trials, in scores by these scales."""
    if rows.empty:
        return _joined([])
    observed = rows["value"].to_numpy(float)
    predicted = model.predict(rows).mean
    low, high = model.interval(rows, LEVEL)
    errors = np.empty(len(rows))
    for task, places in rows.groupby("task").indices.items():
        scale = scales[str(task)]
        errors[places] = abs(scale.score_at(predicted[places]) - scale.score_at(observed[places]))
    return Judged(errors=errors, inside=(low <= observed) & (observed <= high))


def _joined(parts: list[Judged]) -> Judged:
    return Judged(
        errors=np.concatenate([np.empty(0), *(part.errors for part in parts)]),
        inside=np.concatenate([np.empty(0, dtype=bool), *(part.inside for part in parts)]),
    )
