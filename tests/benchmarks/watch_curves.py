"""Record real training curves: MLPs and boosted trees on the data sets that scikit-learn ships.

`python tests/benchmarks/watch_curves.py` writes `build/curves.npz`, in some minutes of one core.
Hyperparameters are drawn at random, as in a first sweep of a team. A curve is the loss on held-out
rows after each epoch or tree (log loss; RMSE of `diabetes`), with the CPU seconds that each took.

n    runs, E epochs of the longest; NaN behind a run's end

task     (n,) name of the data set and of the kind of model
values   (n, E) held-out loss after each epoch, minimised
seconds  (n, E) CPU seconds of each epoch
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

OUT = Path(__file__).parents[2] / "build" / "curves.npz"
DATA = {
    "digits": datasets.load_digits,
    "breast_cancer": datasets.load_breast_cancer,
    "diabetes": datasets.load_diabetes,
    "wine": datasets.load_wine,
}
TASKS = (
    "digits mlp", "digits lightgbm", "breast_cancer mlp", "breast_cancer lightgbm",
    "diabetes mlp", "diabetes lightgbm", "wine mlp",
)  # fmt: skip
MLP_EPOCHS = (60, 61)  # all alike
TREES = (30, 101)  # each run its own number, as people do

Array = NDArray[np.float64]
Split = tuple[Array, Array, Array, Array]
Course = Iterator[float]  # held-out loss, epoch after epoch


def mlp_course(split: Split, is_regression: bool, rng: np.random.Generator) -> Course:
    """An MLP, one pass over the rows an epoch."""
    x, x_out, y, y_out = split
    n_epochs = int(rng.integers(*MLP_EPOCHS))
    model = (MLPRegressor if is_regression else MLPClassifier)(
        hidden_layer_sizes=(int(2 ** rng.uniform(2, 7)),) * int(rng.integers(1, 3)),
        alpha=10 ** rng.uniform(-6, 0),
        learning_rate_init=10 ** rng.uniform(-4, -0.5),
        batch_size=min(int(rng.choice([32, 64, 128, 256])), len(x)),
        solver=str(rng.choice(["adam", "sgd"])),
        activation=str(rng.choice(["relu", "tanh"])),
        random_state=int(rng.integers(1 << 30)),
    )
    classes = {} if is_regression else {"classes": np.unique(y)}
    for _ in range(n_epochs):
        model.partial_fit(x, y, **classes)
        if is_regression:
            with np.errstate(over="ignore", invalid="ignore"):
                yield float(np.sqrt(np.mean((model.predict(x_out) - y_out) ** 2)))
        else:
            yield float(log_loss(y_out, model.predict_proba(x_out), labels=np.unique(y)))


def lightgbm_course(split: Split, is_regression: bool, rng: np.random.Generator) -> Course:
    """Boosted trees, one for each class an epoch."""
    x, x_out, y, y_out = split
    n_classes = len(np.unique(y))
    objective = {"objective": "regression", "metric": "rmse"}
    if not is_regression and n_classes == 2:
        objective = {"objective": "binary", "metric": "binary_logloss"}
    elif not is_regression:
        objective = {"objective": "multiclass", "metric": "multi_logloss", "num_class": n_classes}
    params = objective | {
        "learning_rate": 10 ** rng.uniform(-2.5, 0),
        "num_leaves": int(2 ** rng.uniform(1.5, 6)),
        "min_data_in_leaf": int(2 ** rng.uniform(0, 6)),
        "feature_fraction": rng.uniform(0.2, 1.0),
        "lambda_l2": 10 ** rng.uniform(-3, 2),
        "seed": int(rng.integers(1 << 30)),
        "num_threads": 1,
        "verbose": -1,
    }
    data = lgb.Dataset(x, y)
    booster = lgb.Booster(params, data)
    booster.add_valid(lgb.Dataset(x_out, y_out, reference=data), "out")
    for _ in range(int(rng.integers(*TREES))):
        booster.update()
        yield float(booster.eval_valid()[0][2])


COURSES: dict[str, Callable[[Split, bool, np.random.Generator], Course]] = {
    "mlp": mlp_course,
    "lightgbm": lightgbm_course,
}


def split_of(name: str) -> Split:
    """Rows to learn from and rows held out, `x`, `x_out`, `y`, `y_out`; columns standardised."""
    x, y = DATA[name](return_X_y=True)
    if name == "diabetes":
        y = (y - y.mean()) / y.std()
    x, x_out, y, y_out = train_test_split(x, y, test_size=0.3, random_state=0)
    scaler = StandardScaler().fit(x)
    return scaler.transform(x), scaler.transform(x_out), y, y_out


def record(course: Course) -> tuple[list[float], list[float]]:
    """The values of a training, and the CPU seconds of each epoch."""
    values: list[float] = []
    seconds: list[float] = []
    began = time.process_time()
    for value in course:
        seconds.append(time.process_time() - began)
        values.append(value)
        began = time.process_time()
    return values, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=80, help="of each task")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    names: list[str] = []
    runs: list[tuple[list[float], list[float]]] = []
    with threadpool_limits(1):
        for task in args.tasks:
            data, kind = task.split()
            split = split_of(data)
            for seed in range(args.runs):
                rng = np.random.default_rng([TASKS.index(task), seed])
                try:
                    runs.append(record(COURSES[kind](split, data == "diabetes", rng)))
                except ValueError:  # it has diverged, and scikit-learn refuses to go on
                    continue
                names.append(task)
            n = names.count(task)
            took = sum(sum(seconds) for _, seconds in runs[-n:])
            print(f"{task:24} {n} runs, {took:.0f} s of CPU", flush=True)
    shape = (len(runs), max(len(values) for values, _ in runs))
    values, seconds = np.full(shape, np.nan), np.full(shape, np.nan)
    for row, (of_values, of_seconds) in enumerate(runs):
        values[row, : len(of_values)] = of_values
        seconds[row, : len(of_seconds)] = of_seconds
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out, task=np.array(names), values=values, seconds=seconds)


if __name__ == "__main__":
    main()
