"""A sampler that has past trials of other tasks as its prior, and `proposal` as its engine."""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_limits

from mlflow_meta.errors import Exhausted, NothingToLearn
from mlflow_meta.models import ZOO
from mlflow_meta.models.meta_model import MIN_TRIALS
from mlflow_meta.optuna import told
from mlflow_meta.proposal import choose_batch, spread_out, tried_on
from mlflow_meta.space import Param, SearchSpace, conditioned, infer
from mlflow_meta.store import MlflowStore
from mlflow_meta.trials import Config, Direction

MIN_TOGETHER = 4  # trials that are chosen at once, at least,
SHARE_TOGETHER = 0.1  # or so many of those that the study has: few more results change little


@dataclass
class _Asked:
    """What a study was given, and what waits for it.

    Attributes:
        space: Where those that wait were chosen together.
        waiting: The best first.
        given: Number of an open trial -> what was chosen for it.
    """

    space: SearchSpace | None = None
    waiting: deque[Config] = field(default_factory=deque)
    given: dict[int, Config] = field(default_factory=dict)


class MetaSampler(BaseSampler):
    """Chooses a study's next trial by its own trials and by those of other tasks.

    The params are chosen together: all that the study's trials have asked for, under the conditions
    that those and the history show, and before its first trial is over those of the history. A
    param that nobody has asked for before is random. Of values that are waited for it is known that
    they were asked. One objective only; a study's `constraints_func` and pruned values are not
    looked at, but the constraints of a `space` are kept to.

    A trial's choice depends on the seed, its number and what is known, so that equal studies are
    equal, and parallel ones differ without being reseeded. The model is asked anew once a tenth
    more trials are known.

    Example:
        >>> import optuna
        >>> study = optuna.create_study(sampler=MetaSampler(seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=3)
        >>> len(study.trials)
        3
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        history: pd.DataFrame | None = None,
        space: SearchSpace | None = None,
    ) -> None:
        """Make a sampler; without a history it learns from its study alone.

        Args:
            seed: Equal seeds give equal studies; None for one of the system's.
            history: Trials of other tasks, and maybe of the study's: a frame with `task`, `value`
                (minimised, also where the study maximises) and `params.<name>`, as
                `MetaDataset.trials` gives. The study's own task is its name.
            space: The params that the objective will ask for, until it has; None infers them from
                the history.

        Raises:
            ValueError: If the history lacks a column, or a value of it is not finite.
        """
        if history is not None:
            if missing := {"task", "value"} - set(history):
                raise ValueError(
                    f"A history needs the columns task and value, but {sorted(missing)} is missing."
                )
            n_odd = int((~np.isfinite(history["value"].to_numpy(float))).sum())
            if n_odd:
                raise ValueError(
                    f"Every value of a history must be finite, but {n_odd} of {len(history)} are "
                    "not. Leave those rows out."
                )
        self._entropy = np.random.SeedSequence(seed).entropy
        self._history = history
        self._expected = _bare(space) if space else _inferred(history)
        self._given_space = space
        self._begin()

    def _begin(self) -> None:
        """Forget every study."""
        # By the studies' storage, for as long as that lives: several studies may have one name.
        self._asked: WeakKeyDictionary[BaseStorage, dict[int, _Asked]] = WeakKeyDictionary()
        self._choosing = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        own = {"_asked", "_choosing"}  # of this process
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def _of(self, study: Study) -> _Asked:
        of_storage = self._asked.setdefault(study._storage, {})
        return of_storage.setdefault(study._study_id, _Asked())

    @classmethod
    def from_mlflow(
        cls,
        store: MlflowStore,
        experiment_names: Sequence[str] = (),
        *,
        metric: str | None = None,
        direction: Direction | None = None,
        seed: int | None = None,
    ) -> MetaSampler:
        """A sampler that knows the finished runs of some experiments; of all if none is named.

        Args:
            store: Where the runs are; nothing is written there.
            experiment_names: Which experiments.
            metric: What their runs are compared by, as `MetaDataset.objective` takes it.
            direction: Likewise.
            seed: See `MetaSampler`.

        Raises:
            NothingToLearn: If there is no such experiment, or no run with the metric.
        """
        dataset = store.read(experiment_names)
        return cls(seed=seed, history=dataset.trials(dataset.objective(metric, direction)))

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What the study's trials have asked for, also where not every trial did."""
        _check_single(study)
        return told.distributions_of(study.get_trials(deepcopy=False, states=told.ENDED))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A configuration of `search_space`, without what does not exist under its choices."""
        _check_single(study)
        with self._choosing:  # threads of a study know what the others have been given
            trials = study.get_trials(deepcopy=False)
            known = told.together(self._history, told.frame_of(study, trials))
            space = self._space(search_space, known)
            if space is None:
                return {}
            config = self._next(study, trial, trials, known, space)
            self._of(study).given[trial.number] = config
        return {
            name: told.theirs(value, search_space[name])
            for name, value in config.items()
            if name in search_space
        }

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """What was chosen for the trial, if the history knows the param; else a random value."""
        _check_single(study)
        rng = self._rng(trial, param_name)
        param = told.param_of(param_distribution)
        if param is None:
            plain = RandomSampler(seed=int(rng.integers(2**31)))
            return plain.sample_independent(study, trial, param_name, param_distribution)
        wanted = self._of(study).given.get(trial.number, {}).get(param_name)
        near = None if wanted is None else param.nearest(wanted)
        return told.theirs(param.sample(1, rng)[0] if near is None else near, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Forget what was chosen for the trial: from here on its params say it."""
        self._of(study).given.pop(trial.number, None)

    def _rng(self, trial: FrozenTrial, purpose: str) -> np.random.Generator:
        assert self._entropy is not None
        entropy = np.random.SeedSequence(
            self._entropy, spawn_key=(trial.number, zlib.crc32(purpose.encode()))
        )
        return np.random.default_rng(entropy)

    def _space(
        self, search_space: Mapping[str, BaseDistribution], known: pd.DataFrame
    ) -> SearchSpace | None:
        """What is chosen together; None where nothing is known of any param."""
        own = {name: told.param_of(d) for name, d in sorted(search_space.items())}
        params = {**self._expected, **{name: param for name, param in own.items() if param}}
        if not params:
            return None
        space = conditioned(params, known)
        if self._given_space is not None:  # for its constraints
            space = self._given_space.part(space.params)
        if not own:
            return space
        # The objective asks for these; for others only under a choice that it has not made yet.
        return space.only([name for name, p in space.params.items() if name in own or p.when])

    def _next(
        self,
        study: Study,
        trial: FrozenTrial,
        trials: Sequence[FrozenTrial],
        known: pd.DataFrame,
        space: SearchSpace,
    ) -> Config:
        """The next of those that were chosen together; chosen anew where none is left."""
        asked = self._of(study)
        if asked.space != space or not asked.waiting:
            rng = self._rng(trial, "")
            n_own = int((known["task"].astype(str) == study.study_name).sum())
            n = max(MIN_TOGETHER, round(SHARE_TOGETHER * n_own), MIN_TRIALS - len(known))
            given = [
                asked.given.get(t.number) or told.config_of(t)
                for t in trials
                if t.number != trial.number
            ]
            # The history may have runs of the task, too.
            had = map(space.active, [*tried_on(known, study.study_name), *given])
            tried = [config for config in had if config]
            found = _choose(known, space, study.study_name, n, tried, rng)
            asked.space, asked.waiting = space, deque(found)
        return asked.waiting.popleft()


def _choose(
    known: pd.DataFrame,
    space: SearchSpace,
    task: str,
    n: int,
    tried: Sequence[Config],
    rng: np.random.Generator,
) -> Sequence[Config]:
    """At least one configuration: where all were tried, random ones again."""
    model = ZOO["transfer"]()
    try:
        with threadpool_limits(1):  # more threads take longer over matrices that are so small
            try:
                model.learn(known, space)
            except NothingToLearn:
                return spread_out(space, n, tried=tried, rng=rng)
            return choose_batch(model, space, known, task=task, n=n, tried=tried, rng=rng)[0]
    except Exhausted:
        return space.sample(n, rng)


def _inferred(history: pd.DataFrame | None) -> dict[str, Param]:
    if history is None or history.empty:
        return {}
    try:
        return _bare(infer(history).space)
    except NothingToLearn:
        return {}


def _bare(space: SearchSpace) -> dict[str, Param]:
    """The params without conditions."""
    return {name: replace(param, when={}) for name, param in space.params.items()}


def _check_single(study: Study) -> None:
    if len(study.directions) > 1:
        raise ValueError(
            f"MetaSampler takes one objective, but the study {study.study_name!r} has "
            f"{len(study.directions)}. Take NSGAIISampler or TPESampler for several."
        )
