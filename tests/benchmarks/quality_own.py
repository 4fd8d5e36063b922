"""Scenarios unlike the tables: continuous, conditional, up to 14 params, without any package.

analytic:  14 params, one level of conditions, an optimum that is known; any number of tasks
sklearn:   12 params, two levels of conditions, real trainings of some milliseconds each
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from quality_scenario import Scenario, Vector
from sklearn import datasets
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import LabelBinarizer, StandardScaler

from mlflow_meta.space import Categorical, SearchSpace
from mlflow_meta.trials import Config

# Analytic: the shape of tuning a network

ANALYTIC: dict[str, dict[str, Any]] = {
    "optimizer": {"type": "categorical", "choices": ["sgd", "adam", "rmsprop"]},
    "lr": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
    "momentum": {"type": "float", "low": 0.0, "high": 0.99, "when": {"optimizer": ["sgd"]}},
    "beta2": {"type": "float", "low": 0.9, "high": 0.9999, "when": {"optimizer": ["adam"]}},
    "weight_decay": {"type": "float", "low": 1e-8, "high": 1e-1, "log": True},
    "batch_size": {"type": "int", "low": 8, "high": 1024, "log": True},
    "layers": {"type": "int", "low": 1, "high": 12},
    "units": {"type": "int", "low": 16, "high": 2048, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.7},
    "smoothing": {"type": "float", "low": 0.0, "high": 0.3},
    "warmup": {"type": "float", "low": 0.0, "high": 0.5},
    "clip": {"type": "float", "low": 0.1, "high": 100.0, "log": True},
    "mixup": {"type": "float", "low": 0.0, "high": 1.0},
    "epochs": {"type": "int", "low": 5, "high": 200, "log": True},
}
WEIGHTS = {
    "lr": 6.0, "momentum": 1.5, "beta2": 1.5, "weight_decay": 1.5, "batch_size": 1.0,
    "layers": 1.0, "units": 1.0, "dropout": 1.5, "smoothing": 0.3, "warmup": 0.3, "clip": 0.2,
    "mixup": 0.3, "epochs": 2.0,
}  # fmt: skip
PRICES = {"sgd": 0.3, "adam": 0.0, "rmsprop": 0.15}
COUPLING = 0.4  # how far the best lr moves with the batch size, both on the unit scale
TOO_HIGH, DIVERGED = 0.3, 3.0  # a lr so far above the best one costs so much more


def analytic(n_tasks: int = 6) -> Scenario:
    """Valleys around optima that differ from task to task, about as much as those of real ones.

    loss = best + scale * cost / (1 + cost), cost = price(optimizer) + sum of w |x - optimum|^1.7;
    all terms are >= 0, and 0 at the optimum.
    """
    space = SearchSpace.from_dict(ANALYTIC)
    names = list(WEIGHTS)
    lr, batch_size = names.index("lr"), names.index("batch_size")
    rng = np.random.default_rng(14)
    shared = rng.uniform(0.3, 0.7, len(names))
    tasks = tuple(f"task{i}" for i in range(n_tasks))
    optima = {task: _allowed(space, shared + rng.normal(0, 0.12, len(names))) for task in tasks}
    best = {task: float(rng.uniform(0.01, 0.5)) for task in tasks}
    scale = {task: float(10 ** rng.uniform(-1, 2)) for task in tasks}

    def loss(task: str, configs: Sequence[Config]) -> Vector:
        away = _units(space, configs) - optima[task]
        away[:, lr] -= COUPLING * away[:, batch_size]
        terms = np.array(list(WEIGHTS.values())) * np.abs(np.nan_to_num(away)) ** 1.7
        cost = terms.sum(axis=1) + [PRICES[str(config["optimizer"])] for config in configs]
        cost += DIVERGED * (away[:, lr] > TOO_HIGH)
        return np.asarray(best[task] + scale[task] * cost / (1 + cost))

    random = space.sample(10_000, np.random.default_rng(0))
    median = {task: float(np.median(loss(task, random))) for task in tasks}
    return Scenario(name="analytic", space=space, tasks=tasks, loss=loss, best=best, median=median)


def _units(space: SearchSpace, configs: Sequence[Config]) -> Vector:
    """Where the numbers lie on their scales `(n, d)`; nan where inactive."""
    columns = []
    for name in WEIGHTS:
        values = np.array([config.get(name, np.nan) for config in configs], dtype=float)
        columns.append(space.params[name].to_unit(values))
    return np.column_stack(columns)


def _allowed(space: SearchSpace, unit: Vector) -> Vector:
    """`unit (d,)` put on values that the params may take, so that the optimum can be reached."""
    values = {}
    for name, position in zip(WEIGHTS, np.clip(unit, 0.05, 0.95), strict=True):
        param = space.params[name]
        assert not isinstance(param, Categorical)
        values[name] = param.from_unit(np.array([position]))[0]
    return np.asarray(_units(space, [values])[0])


# Real trainings: which model, and how to set it

SKLEARN: dict[str, dict[str, Any]] = {
    "model": {"type": "categorical", "choices": ["kernel", "neighbors", "forest", "linear"]},
    "scaled": {"type": "categorical", "choices": [False, True]},
    "column_share": {"type": "float", "low": 0.2, "high": 1.0},
    "alpha": {
        "type": "float", "low": 1e-6, "high": 1e3, "log": True,
        "when": {"model": ["kernel", "linear"]},
    },
    "kernel": {
        "type": "categorical", "choices": ["rbf", "laplacian", "poly"],
        "when": {"model": ["kernel"]},
    },
    "gamma": {
        "type": "float", "low": 1e-5, "high": 10.0, "log": True, "when": {"model": ["kernel"]}
    },
    "degree": {"type": "int", "low": 2, "high": 5, "when": {"kernel": ["poly"]}},
    "n_neighbors": {
        "type": "int", "low": 1, "high": 60, "log": True, "when": {"model": ["neighbors"]}
    },
    "weights": {
        "type": "categorical", "choices": ["uniform", "distance"], "when": {"model": ["neighbors"]}
    },
    "max_depth": {"type": "int", "low": 1, "high": 16, "when": {"model": ["forest"]}},
    "min_leaf": {
        "type": "int", "low": 1, "high": 30, "log": True, "when": {"model": ["forest"]}
    },
    "max_features": {"type": "float", "low": 0.1, "high": 1.0, "when": {"model": ["forest"]}},
}  # fmt: skip
LOADERS = {
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "wine": datasets.load_wine,
    "diabetes": datasets.load_diabetes,
    "iris": datasets.load_iris,
}
N_ROWS = 400  # of a data set, at most: a training takes milliseconds
WORST = 3.0  # relative squared error; a kernel without bounds can err without bounds
# Of 1,500 random configurations, and the least that 1,500 steps of a random walk from the best five
# of them have found: what trained there takes minutes is not trained in every run of the benchmark.
MEDIAN = {
    "breast_cancer": 0.258339,
    "digits": 0.441712,
    "wine": 0.252658,
    "diabetes": 0.569542,
    "iris": 0.287286,
}
BEST = {
    "breast_cancer": 0.102590,
    "digits": 0.066175,
    "wine": 0.055133,
    "diabetes": 0.490376,
    "iris": 0.066250,
}


@cache
def _data(task: str) -> tuple[Vector, Vector]:
    """Columns, those that tell most first, and targets: classes as indicators, all standardised."""
    X, y = LOADERS[task](return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(X))[:N_ROWS]
    X, y = X[rows], y[rows]
    Y = y[:, None] if task == "diabetes" else LabelBinarizer().fit_transform(y)
    Y = StandardScaler().fit_transform(Y.astype(float))
    X = X[:, X.std(axis=0) > 0]
    told = np.abs(StandardScaler().fit_transform(X).T @ Y).sum(axis=1)
    return X[:, np.argsort(-told, kind="stable")], Y


def training_loss(task: str, config: Config) -> float:
    """Relative squared error, 1 - R2, in 3-fold cross-validation."""
    X, Y = _data(task)
    X = X[:, : max(1, round(float(config["column_share"]) * X.shape[1]))]
    if config["scaled"]:
        X = StandardScaler().fit_transform(X)
    folds = np.arange(len(X)) % 3
    errors = np.empty(Y.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a singular kernel is a bad choice, not a fault
        for fold in range(3):
            model = _model(config).fit(X[folds != fold], Y[folds != fold])
            errors[folds == fold] = model.predict(X[folds == fold]).reshape(-1, Y.shape[1])
    errors -= Y
    return float(np.nan_to_num(min(np.mean(errors**2), WORST), nan=WORST))


def _model(config: Config) -> Any:
    match config["model"]:
        case "kernel":
            names = ("alpha", "kernel", "gamma", "degree")
            return KernelRidge(**{name: config[name] for name in names if name in config})
        case "neighbors":
            return KNeighborsRegressor(config["n_neighbors"], weights=config["weights"])
        case "forest":
            return ExtraTreesRegressor(
                12,
                max_depth=config["max_depth"],
                min_samples_leaf=config["min_leaf"],
                max_features=config["max_features"],
                random_state=0,
            )
        case _:
            return Ridge(config["alpha"])


def sklearn() -> Scenario:
    """Four algorithms on five small data sets."""
    space = SearchSpace.from_dict(SKLEARN)

    def loss(task: str, configs: Sequence[Config]) -> Vector:
        return np.array([training_loss(task, config) for config in configs])

    return Scenario(
        name="sklearn", space=space, tasks=tuple(LOADERS), loss=loss, best=BEST, median=MEDIAN
    )


SCENARIOS = {"analytic": analytic, "sklearn": sklearn}
