"""Train one of four algorithms on a data set of scikit-learn, and log the run to MLflow.

One run, with the hyperparameters that are given and defaults for the others:

    python train.py --dataset=digits --model=lightgbm --learning_rate=0.05 --n_estimators=80

A random search of 16 runs, in the experiment `demo-digits`:

    python train.py --dataset=digits --sweep=16 --seed=0

Each run logs `val_loss` (lower is better): the log loss of a classifier, or the relative squared
error, 1 - R2, of a regressor, of out-of-fold predictions in 3-fold cross-validation.
"""

import argparse
import logging
import math
import os
import time
import warnings
from itertools import cycle, islice
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads sleep: sweeps share the cores

import lightgbm
import mlflow
import numpy as np
import pandas as pd
from mlflow.data.pandas_dataset import from_pandas
from sklearn import datasets, metrics
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import SelectPercentile, VarianceThreshold, f_classif, f_regression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

TEAM = "tabular"
LOADERS = {
    "breast_cancer": datasets.load_breast_cancer,
    "diabetes": datasets.load_diabetes,
    "digits": datasets.load_digits,
    "wine": datasets.load_wine,
}
REGRESSION = {"diabetes"}

Config = dict[str, Any]


class Range(NamedTuple):
    """Where a sweep draws a hyperparameter from; `low` has its type."""

    low: float
    high: float
    default: float
    log: bool = False

    def draw(self, rng: np.random.Generator) -> float:
        """Draw a value, of three significant digits, uniformly in x or in log x."""
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = rng.uniform(self.low, self.high)
        return round(value) if isinstance(self.low, int) else float(f"{value:.3g}")


COMMON = {
    "sample_share": Range(0.3, 1.0, 1.0),  # of the training rows
    "feature_share": Range(0.2, 1.0, 1.0),  # of the columns, the most relevant ones first
}
SPACE = {
    "lightgbm": {
        "learning_rate": Range(1e-3, 0.5, 0.1, log=True),
        "n_estimators": Range(10, 100, 50, log=True),
        "num_leaves": Range(4, 32, 16, log=True),
        "min_child_samples": Range(2, 40, 20),
    },
    "random_forest": {
        "n_estimators": Range(5, 60, 30, log=True),
        "max_depth": Range(2, 16, 16),
        "max_features": Range(0.1, 1.0, 0.5),
    },
    "mlp": {
        "hidden_units": Range(4, 128, 64, log=True),
        "alpha": Range(1e-6, 1.0, 1e-4, log=True),
        "learning_rate_init": Range(1e-4, 0.1, 1e-3, log=True),
        "epochs": Range(5, 100, 50, log=True),
    },
    "linear": {"C": Range(1e-4, 100.0, 1.0, log=True)},
}


def load(dataset: str) -> tuple[pd.DataFrame, pd.Series]:
    """Load the features and the target of a data set, as floats."""
    bunch = LOADERS[dataset](as_frame=True)
    features = bunch.data.rename(columns=lambda name: name.replace(" ", "_"))
    return features.astype(float), bunch.target.astype(float)


def build(config: Config, *, regression: bool, threads: int, seed: int) -> Pipeline:
    """Build the pipeline: select columns, scale them, fit the chosen algorithm."""
    chosen = {name: config[name] for name in SPACE[config["model"]]}
    match config["model"]:
        case "lightgbm":
            kind = lightgbm.LGBMRegressor if regression else lightgbm.LGBMClassifier
            model = kind(**chosen, n_jobs=threads, random_state=seed, verbosity=-1)
        case "random_forest":
            kind = RandomForestRegressor if regression else RandomForestClassifier
            model = kind(**chosen, n_jobs=threads, random_state=seed)
        case "mlp":
            kind = MLPRegressor if regression else MLPClassifier
            model = kind(
                hidden_layer_sizes=(chosen["hidden_units"],),
                alpha=chosen["alpha"],
                learning_rate_init=chosen["learning_rate_init"],
                max_iter=chosen["epochs"],
                random_state=seed,
            )
        case _:
            model = Ridge(alpha=1 / chosen["C"]) if regression else LogisticRegression(**chosen)
    if regression:
        model = TransformedTargetRegressor(model, transformer=StandardScaler())
    relevance = f_regression if regression else f_classif
    steps = [
        ("varies", VarianceThreshold()),
        ("select", SelectPercentile(relevance, percentile=100 * config["feature_share"])),
        ("scale", StandardScaler()),
        ("model", model),
    ]
    return Pipeline(steps)


def evaluate(
    pipeline: Pipeline,
    features: pd.DataFrame,
    target: pd.Series,
    used: np.ndarray,
    *,
    regression: bool,
) -> dict[str, float]:
    """Cross-validate: fit on the used rows of two folds, predict all rows of the third."""
    folds = (KFold if regression else StratifiedKFold)(3, shuffle=True, random_state=0)
    splits = [(train[used[train]], valid) for train, valid in folds.split(features, target)]
    method = "predict" if regression else "predict_proba"
    predicted = cross_val_predict(pipeline, features, target, cv=splits, method=method)
    if regression:
        r2 = metrics.r2_score(target, predicted)
        rmse = metrics.root_mean_squared_error(target, predicted)
        return {"val_loss": 1 - r2, "r2": r2, "rmse": rmse}
    loss = metrics.log_loss(target, predicted)
    accuracy = metrics.accuracy_score(target, predicted.argmax(axis=1))
    return {"val_loss": loss, "log_loss": loss, "accuracy": accuracy}


def run(dataset: str, config: Config, *, stage: str, threads: int, seed: int) -> None:
    """Train and evaluate one configuration, as one MLflow run."""
    features, target = load(dataset)
    regression = dataset in REGRESSION
    order = np.random.default_rng(0).permutation(len(features))
    used = order < config["sample_share"] * len(features)
    tags = {"team": TEAM, "stage": stage, "threads": str(threads)}
    with mlflow.start_run(tags=tags), threadpool_limits(threads):
        mlflow.log_params(config)
        pipeline = build(config, regression=regression, threads=threads, seed=seed)
        scores = evaluate(pipeline, features, target, used, regression=regression)
        start = time.perf_counter()
        pipeline.fit(features[used], target[used])
        scores["train_seconds"] = time.perf_counter() - start
        columns = pipeline[:2].get_feature_names_out()
        frame = features.loc[used, columns].assign(target=target[used])
        data = from_pandas(frame, name=dataset, targets="target")
        mlflow.log_input(data, context="training")
        mlflow.log_metrics(scores)


def draw(model: str, rng: np.random.Generator) -> Config:
    """Draw a value for each hyperparameter of an algorithm."""
    ranges = COMMON | SPACE[model]
    return {"model": model} | {name: given.draw(rng) for name, given in ranges.items()}


def read_config(model: str, words: list[str]) -> Config:
    """Read the hyperparameters of an algorithm from the rest of the command line."""
    parser = argparse.ArgumentParser(f"--model={model}", allow_abbrev=False)
    for name, given in (COMMON | SPACE[model]).items():
        parser.add_argument(f"--{name}", type=type(given.low), default=given.default)
    return {"model": model} | vars(parser.parse_args(words))


def main() -> None:
    """Run what the command line says."""
    lines = [f"  {model}: {' '.join(COMMON | SPACE[model])}" for model in SPACE]
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="hyperparameters, --name=value:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--dataset", choices=LOADERS, required=True)
    parser.add_argument("--model", choices=SPACE, default="lightgbm")
    parser.add_argument(
        "--sweep", type=int, metavar="N", help="N random runs, by turns of algorithm"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sweep and of the models")
    parser.add_argument("--threads", type=int, choices=(1, 2), default=1)
    options, words = parser.parse_known_args()
    if options.sweep and words:
        parser.error(f"a sweep draws the hyperparameters itself: {' '.join(words)}")

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    warnings.simplefilter("ignore", ConvergenceWarning)  # few epochs are a choice here
    mlflow.set_experiment(f"demo-{options.dataset}")
    if options.sweep:
        rng = np.random.default_rng([options.seed, *options.dataset.encode()])
        for model in islice(cycle(SPACE), options.sweep):
            config, threads = draw(model, rng), int(rng.choice([1, 1, 1, 2]))
            run(options.dataset, config, stage="sweep", threads=threads, seed=options.seed)
    else:
        config = read_config(options.model, words)
        run(options.dataset, config, stage="manual", threads=options.threads, seed=options.seed)


if __name__ == "__main__":
    main()
