"""The meta-models that the benchmark of the search asks: of known sizes, of a smooth surface.

A space has parameters of equally many whole numbers, or bits. 2,000 of its configurations, drawn at
random, have `surfaces.hilly` for their value: smooth, and with interactions.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits

sys.path.append(str(Path(__file__).parent.parent))

from surfaces import hilly

from mlflow_meta.columns import frame_of
from mlflow_meta.models import MetaModel, Prediction
from mlflow_meta.models.forms import Form, Relu
from mlflow_meta.models.linear import QuadraticRidge
from mlflow_meta.models.trees import _trees
from mlflow_meta.search.levels import levels_of
from mlflow_meta.search.surface import Surface
from mlflow_meta.search.translate import surface_of
from mlflow_meta.space import SearchSpace

N_RUNS = 2000
TREES = {
    "objective": "regression",
    "learning_rate": 0.08,
    "min_data_in_leaf": 4,
    "min_data_in_bin": 1,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


class _Regressor:
    """What a `Formed` regressor has beside `fit` and `form`."""

    peer: Callable[[np.ndarray], np.ndarray]
    """The library's own `predict`."""

    def predict(self, X: np.ndarray) -> Prediction:
        return Prediction(np.asarray(self.peer(X)), np.ones(len(X)))

    def draw(self, rng: np.random.Generator) -> Form:
        del rng
        return self.form()

    def form(self) -> Form:
        raise NotImplementedError


@dataclass
class Boosted(_Regressor):
    """One LightGBM booster."""

    n_trees: int
    n_leaves: int
    depth: int

    def fit(self, X: np.ndarray, y: np.ndarray, *, groups: np.ndarray, seed: int) -> None:
        params = TREES | {"num_leaves": self.n_leaves, "max_depth": self.depth, "seed": seed}
        booster = lgb.train(params, lgb.Dataset(X, y), self.n_trees)
        self.peer = partial(booster.predict, num_threads=len(os.sched_getaffinity(0)))
        self._form = _trees(booster.model_to_string())

    def form(self) -> Form:
        return self._form


@dataclass
class Network(_Regressor):
    """One network of a layer of rectified units."""

    n_units: int

    def fit(self, X: np.ndarray, y: np.ndarray, *, groups: np.ndarray, seed: int) -> None:
        network = MLPRegressor(
            hidden_layer_sizes=(self.n_units,), solver="lbfgs", max_iter=300, random_state=seed
        )
        with threadpool_limits(1), warnings.catch_warnings():  # more only wait for each other
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(X, y)
        self.peer, (weights, out) = network.predict, network.coefs_
        bias, constant = network.intercepts_
        self._form = Relu(constant=float(constant[0]), weights=weights, bias=bias, out=out[:, 0])

    def form(self) -> Form:
        return self._form


MAKERS: dict[str, Callable[..., Any]] = {
    "additive": QuadraticRidge,
    "trees": Boosted,
    "network": Network,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, and the space that it is asked about."""

    model: MetaModel
    space: SearchSpace

    @property
    def n_configs(self) -> int:
        """How many configurations there are."""
        return int(self.space.n_configs)

    @property
    def regressor(self) -> Any:
        """What the model is around."""
        return self.model.regressor

    def sampled(self, n: int) -> np.ndarray:
        """X of `n` random configurations."""
        configs = self.space.sample(n, np.random.default_rng(1))
        return self.model.encoder.encode(frame_of(configs, self.space.names))

    def surface(self) -> Surface:
        """What the engines search."""
        form = self.regressor.form()
        return surface_of(form, levels_of(self.space, self.model.encoder, form, {}))


def numbers(n_params: int, n_levels: int) -> SearchSpace:
    """Parameters of `n_levels` whole numbers each."""
    entry = {"type": "int", "low": 1, "high": n_levels}
    return SearchSpace.from_dict({f"p{i:02}": entry for i in range(n_params)})


def bits(n: int) -> SearchSpace:
    """Parameters that are true or false, such as whether a feature is used."""
    entry = {"type": "categorical", "choices": [False, True]}
    return SearchSpace.from_dict({f"p{i:02}": entry for i in range(n)})


def case(kind: str, space: SearchSpace, *sizes: int, seed: int = 0) -> Case:
    """A fitted model.

    Args:
        kind: A name of `MAKERS`.
        space: Of `numbers` or `bits`.
        *sizes: Of the regressor: trees, leaves and depth of each; or units.
        seed: Of the runs.
    """
    rng = np.random.default_rng(seed)
    configs = space.sample(N_RUNS, rng)
    trials = frame_of(configs, space.names)
    levels = trials.to_numpy(dtype=float)
    units = (levels - levels.min(axis=0)) / np.ptp(levels, axis=0)
    model = MetaModel(partial(MAKERS[kind], *sizes))
    model.learn(trials.assign(task="t", value=hilly(units, rng)), space)
    return Case(model=model, space=space)
