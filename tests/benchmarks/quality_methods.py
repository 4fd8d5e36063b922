"""Who proposes: ours and its peers.

A method is made anew for every task and repetition. Its `suggest` is called with all that is known,
a frame as `propose` takes it, which has the results of its earlier suggestions at the end.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

from mlflow_meta import propose
from mlflow_meta.columns import config_of
from mlflow_meta.space import Categorical, Integer, SearchSpace
from mlflow_meta.trials import Config

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

N_CANDIDATES = 20  # best runs of each task that a portfolio is chosen from
N_GIVEN = 10  # best runs of other tasks, one of each, that a study starts with, at most


class Method(Protocol):
    """Proposes what to try next on one task."""

    def suggest(self, history: pd.DataFrame, n: int) -> list[dict[str, Any]]:
        """`n` configurations, or fewer where it has no more."""
        ...


class Ours:
    """`mlflow_meta.propose`."""

    def __init__(self, space: SearchSpace, task: str, seed: int) -> None:
        self.space, self.task = space, task
        self.rng = np.random.default_rng(seed)

    def suggest(self, history: pd.DataFrame, n: int) -> list[dict[str, Any]]:
        return propose(history, self.space, task=self.task, n=n, rng=self.rng)


class Random:
    """Whatever comes."""

    def __init__(self, space: SearchSpace, task: str, seed: int) -> None:
        self.space = space
        self.rng = np.random.default_rng(seed)

    def suggest(self, history: pd.DataFrame, n: int) -> list[dict[str, Any]]:
        return self.space.sample(n, self.rng)


class Portfolio:
    """A greedy zero-shot portfolio, as auto-sklearn 2 and FLAML have: what is good together.

    A random forest for each other task predicts the rank of every configuration that is among the
    best of some task; each choice lowers the mean over the tasks of the best rank the most. What
    is learned on the target is not looked at; without other tasks it is a random search.
    """

    def __init__(self, space: SearchSpace, task: str, seed: int) -> None:
        self.space, self.task = space, task
        self.rng = np.random.default_rng(seed)
        self.order: list[dict[str, Any]] | None = None

    def suggest(self, history: pd.DataFrame, n: int) -> list[dict[str, Any]]:
        if self.order is None:
            self.order = self._order(history[history["task"] != self.task])
        now, self.order = self.order[:n], self.order[n:]
        return now + self.space.sample(n - len(now), self.rng)

    def _order(self, others: pd.DataFrame) -> list[dict[str, Any]]:
        if others.empty:
            return []
        tops = others.sort_values("value", kind="stable").groupby("task", sort=False)
        rows = tops.head(N_CANDIDATES).to_dict("records")
        candidates = list({self.space.key(c): c for c in map(config_of, rows)}.values())
        X = unit_cube(self.space, candidates)
        ranks = np.array([self._ranks(runs, X) for _, runs in others.groupby("task", sort=False)])
        covered, chosen = np.full(len(ranks), np.inf), []
        left = list(range(len(candidates)))
        while left:
            # The mean breaks ties, of which there are many once every task has its best.
            gain = np.minimum(covered[:, None], ranks[:, left]).mean(0) + 1e-3 * ranks[
                :, left
            ].mean(0)
            chosen.append(left.pop(int(np.argmin(gain))))
            covered = np.minimum(covered, ranks[:, chosen[-1]])
        return [candidates[i] for i in chosen]

    def _ranks(self, runs: pd.DataFrame, X: NDArray[np.float64]) -> NDArray[np.float64]:
        seen = unit_cube(self.space, [config_of(row) for row in runs.to_dict("records")])
        forest = RandomForestRegressor(100, min_samples_leaf=2, random_state=0)
        return np.asarray(forest.fit(seen, runs["value"].rank(pct=True)).predict(X))


def unit_cube(space: SearchSpace, configs: Sequence[Config]) -> NDArray[np.float64]:
    """Numbers on their scales, categories as indicators, -1 where inactive; `(n, d)`."""
    columns = []
    for name, param in space.params.items():
        values = [config.get(name) for config in configs]
        if isinstance(param, Categorical) and not param.is_ordered:
            columns += [[float(value == choice) for value in values] for choice in param.choices]
        else:
            numbers = np.array([np.nan if v is None else v for v in values], dtype=float)
            columns.append(np.nan_to_num(param.to_unit(numbers), nan=-1.0).tolist())
    return np.array(columns).T


class OptunaStudy:
    """A study that knows the target's runs, and starts with the best run of each other task."""

    def __init__(self, space: SearchSpace, task: str, seed: int) -> None:
        import optuna  # the extra

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.task, self.seed = space, task, seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = self.sampler()
        self.study = optuna.create_study(direction="minimize", sampler=sampler)
        self.open: list[Trial] = []
        self.begun = False

    def sampler(self) -> BaseSampler:
        raise NotImplementedError

    def suggest(self, history: pd.DataFrame, n: int) -> list[dict[str, Any]]:
        own = history[history["task"] == self.task]
        if not self.begun:
            self._begin(own, history[history["task"] != self.task])
        values = own["value"].to_numpy()[len(own) - len(self.open) :]
        for trial, value in zip(self.open, values, strict=True):
            self.study.tell(trial, float(value))
        self.open = [self.study.ask() for _ in range(n)]
        return [self._config(trial) for trial in self.open]

    def _begin(self, own: pd.DataFrame, others: pd.DataFrame) -> None:
        from optuna.trial import create_trial

        self.begun = True
        for row in own.to_dict("records"):
            params = self._params(config_of(row))
            kinds = {name: distribution(self.space, name) for name in params}
            trial = create_trial(params=params, distributions=kinds, value=float(row["value"]))
            self.study.add_trial(trial)
        tasks = [runs for _, runs in others.groupby("task", sort=True)]
        for i in np.random.default_rng(self.seed).permutation(len(tasks))[:N_GIVEN]:
            best = tasks[i].iloc[int(np.argmin(tasks[i]["value"].to_numpy()))]
            self.study.enqueue_trial(self._params(config_of(best.to_dict())))

    def _params(self, config: Config) -> dict[str, Any]:
        """As Optuna has them: of ordered choices the place, in which a scale is even."""
        params: dict[str, Any] = {}
        for name, value in config.items():
            param = self.space.params[name]
            ordered = isinstance(param, Categorical) and param.is_ordered
            params[name] = param.grid().index(value) if ordered else value
        return params

    def _config(self, trial: Trial) -> dict[str, Any]:
        # Each param is asked for once its parents are known: the space has those first.
        config: dict[str, Any] = {}
        for name, param in self.space.params.items():
            if name not in self.space.active({**config, name: None}):
                continue
            value = _ask(trial, name, distribution(self.space, name))
            ordered = isinstance(param, Categorical) and param.is_ordered
            config[name] = param.grid()[value] if ordered else value
        return config


class Tpe(OptunaStudy):
    """Optuna's TPESampler, as its documentation advises for batches."""

    def sampler(self) -> BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(seed=self.seed, multivariate=True, group=True, constant_liar=True)


class Gp(OptunaStudy):
    """Optuna's GPSampler."""

    def sampler(self) -> BaseSampler:
        from optuna.samplers import GPSampler

        return GPSampler(seed=self.seed, deterministic_objective=True)


def _ask(trial: Trial, name: str, kind: BaseDistribution) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match kind:
        case CategoricalDistribution():
            return trial.suggest_categorical(name, kind.choices)
        case IntDistribution():
            return trial.suggest_int(name, kind.low, kind.high, step=kind.step, log=kind.log)
        case _:
            assert isinstance(kind, FloatDistribution)
            return trial.suggest_float(name, kind.low, kind.high, step=kind.step, log=kind.log)


def distribution(space: SearchSpace, name: str) -> BaseDistribution:
    """The distribution of one param; of ordered choices, that of their places."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    param = space.params[name]
    if isinstance(param, Categorical):
        if param.is_ordered:
            return IntDistribution(0, len(param.choices) - 1)
        return CategoricalDistribution(param.choices)
    if isinstance(param, Integer):
        return IntDistribution(param.low, param.high, log=param.log, step=param.step)
    return FloatDistribution(param.low, param.high, log=param.log, step=param.step)


METHODS: dict[str, Callable[[SearchSpace, str, int], Method]] = {
    "ours": Ours,
    "tpe": Tpe,
    "gp": Gp,
    "portfolio": Portfolio,
    "random": Random,
}
