"""Promote: the version of a meta-model that predicts later runs best becomes the champion."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlflow_meta.errors import StoreRefused
from mlflow_meta.gate import MIN_LATER, Comparison, Judged, Verdict, compare, has_drifted
from mlflow_meta.models.meta_model import scales_of
from mlflow_meta.promotion import Decision, carry_out, is_later, judged
from mlflow_meta.store import MlflowStore, Registered, names, registry

MAX_BACK = 5  # earlier champions that are asked when one has drifted


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """Which version is the champion now, and why.

    Attributes:
        model_name: The registered model's name.
        before: The version that was the champion.
        champion: The version that is.
        n_later: How many runs of the tasks that it knows the one before has not learned from.
        coverage: Share of these in its 80% intervals; nan if there are none.
        has_drifted: Whether it predicts them worse than it promised.
        decisions: What became of the versions that were compared with it: version -> decision.
    """

    model_name: str
    before: str
    champion: str
    n_later: int
    coverage: float
    has_drifted: bool
    decisions: dict[str, Decision]


def promote(
    store: MlflowStore,
    *,
    metric: str | None = None,
    model_name: str | None = None,
    version: str | None = None,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Promotion:
    """Look how the champion has predicted the runs since then, and whether another one did better.

    A champion that has drifted, which is to predict later runs worse than its own cross-validation
    has promised, gives way to the best of the champions before, if that one does better. If it has
    not, the challenger, which is the version that was registered last, is compared with it on the
    runs that neither has learned from.

    Args:
        store: Where the versions and the newest harvest are.
        metric: What they predict, as `suggest` takes it; None if there is only one meta-model.
        model_name: The registered model, where it is not our own choice.
        version: Make this one the champion, whatever later runs say.
        dry_run: Compare, and write nothing.
        progress: Called with what is being done.

    Raises:
        NoModel: If there is no champion.
        StoreRefused: If there is no such version; the champion stays.
        Damaged: If a file of a version that is to be promoted is not what was registered; the
            champion stays.
    """
    if version is not None:
        name, before = registry.champion_number(store, metric=metric, name=model_name)
        registry.check_files(store, name, version)
        by_hand = Decision(verdict=Verdict.BY_HAND, champion=before)
        decisions = {version: by_hand} if version != before else {}
        if not dry_run and decisions:
            carry_out(store, name, version, by_hand)
        return Promotion(
            model_name=name, before=before, champion=version, n_later=0, coverage=float("nan"),
            has_drifted=False, decisions=decisions,
        )  # fmt: skip
    champion = registry.champion(store, metric=metric, name=model_name)
    name = champion.name
    progress("asking the champion about later runs")
    later = _Later.of(store, champion)
    promised = later.of_tasks(champion.model.scales)
    ours = promised.judged(champion)
    drifted = has_drifted(ours, champion.model.cv_rmse, np.random.default_rng(0))
    progress("asking the champions before")
    decisions = _earlier(store, champion, promised) if drifted else {}
    if not decisions:
        progress("asking the challenger")
        decisions = _challenger(store, champion, later)
    now = champion.version
    for other, decision in decisions.items():
        if decision.verdict.is_promoted:
            registry.check_files(store, name, other)
            now = other
        if not dry_run and decision.verdict is not Verdict.TOO_FEW:
            if decision.verdict is Verdict.ROLLED_BACK:
                words = f"drifted; version {other} took over again"
                registry.tag_version(store, name, champion.version, {names.DRIFT: words})
            carry_out(store, name, other, decision)
    return Promotion(
        model_name=name, before=champion.version, champion=now, n_later=len(promised.rows),
        coverage=ours.coverage, has_drifted=drifted, decisions=decisions,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Later:
    """The trials by now, and those of them, `rows`, that a version has not learned from."""

    trials: pd.DataFrame
    rows: pd.DataFrame

    @classmethod
    def of(cls, store: MlflowStore, champion: Registered) -> _Later:
        _, newest = store.dataset()
        trials = newest.with_tasks(champion.tasks_by).trials(champion.objective)
        return cls(trials, trials[is_later(store, champion, trials)])

    def of_tasks(self, tasks: Collection[str]) -> _Later:
        """Those of some tasks: of others a version has promised nothing."""
        return _Later(self.trials, self.rows[self.rows["task"].isin(list(tasks))])

    def judged(self, version: Registered) -> Judged:
        return judged(version.model, self.rows, scales_of(self.trials))

    def compared(self, store: MlflowStore, champion: Registered, other: Registered) -> Comparison:
        """Both on the runs that neither has learned from."""
        fresh = _Later(self.trials, self.rows[is_later(store, other, self.rows)])
        return compare(fresh.judged(champion), fresh.judged(other), np.random.default_rng(0))


def _earlier(store: MlflowStore, champion: Registered, later: _Later) -> dict[str, Decision]:
    """The best of the champions before, where it does better than the one that has drifted."""
    found: dict[str, Comparison] = {}
    version, n_asked = champion, 0
    while before := version.tags.get(f"{names.GATE}.champion_before"):
        n_asked += 1
        if before in (champion.version, *found) or n_asked > MAX_BACK:
            break
        try:
            version = registry.version_of(store, champion.name, before)
        except StoreRefused:  # somebody has deleted it
            break
        compared = later.compared(store, champion, version)
        if names.DRIFT not in version.tags and compared.n >= MIN_LATER and compared.gain > 0:
            found[before] = compared
    if not found:
        return {}
    best = max(found, key=lambda version: found[version].gain)
    return {best: Decision(verdict=Verdict.ROLLED_BACK, champion=None, comparison=found[best])}


def _challenger(store: MlflowStore, champion: Registered, later: _Later) -> dict[str, Decision]:
    """The version that was registered last, if it is not the champion, and has not drifted."""
    other = registry.challenger(store, champion.name)
    if other is None or other.version == champion.version or names.DRIFT in other.tags:
        return {}
    if not other.model.has_signal:
        return {other.version: Decision(verdict=Verdict.NO_SIGNAL, champion=champion.version)}
    found = later.compared(store, champion, other)
    return {
        other.version: Decision(verdict=found.verdict, champion=champion.version, comparison=found)
    }
