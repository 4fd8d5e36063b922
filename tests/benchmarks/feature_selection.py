"""Which columns a model should read: the suggested subset beside what others select.

Data sets that ship with scikit-learn, each with as many columns of noise (the original columns, in
random order of rows) as it has. The history is `--runs` trainings on random subsets, as a team that
logs `features=...` would have them: the cross-validated score of a real model. Of it the suggested
subset is what `propose` would train next, first of five; trained too.

informative   an original column whose permutation on held-out rows costs the model that reads all
              of the original columns and the noise more than twice its standard error
precision     share of the chosen columns that are informative (original: that are no noise)
recall        share of the informative columns that are chosen
score         R2 or accuracy, 5-fold cross-validated on other folds than the history's

    python tests/benchmarks/feature_selection.py
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.feature_selection import RFE, SelectFromModel, SelectKBest, f_classif, f_regression
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LassoCV, LogisticRegression, LogisticRegressionCV, Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mlflow_meta import SearchSpace, propose
from mlflow_meta.subsets import folded, items_of

LOADERS = {"diabetes": load_diabetes, "wine": load_wine, "breast_cancer": load_breast_cancer}
N_PERMUTED = 20
Chosen = np.ndarray


@dataclass(frozen=True)
class Data:
    """A data set with noise: X (n, 2 p), of which the first p columns are original."""

    name: str
    X: np.ndarray
    y: np.ndarray
    columns: list[str]
    informative: np.ndarray
    is_regression: bool

    @property
    def is_original(self) -> np.ndarray:
        return np.arange(self.X.shape[1]) < self.X.shape[1] // 2

    def model(self) -> BaseEstimator:
        last = Ridge() if self.is_regression else LogisticRegression(max_iter=500)
        return make_pipeline(StandardScaler(), last)

    def score(self, chosen: Chosen, seed: int) -> float:
        """Cross-validated R2 or accuracy of the model on some columns."""
        kind = KFold if self.is_regression else StratifiedKFold
        folds = kind(5, shuffle=True, random_state=seed)
        return float(cross_val_score(self.model(), self.X[:, chosen], self.y, cv=folds).mean())


def data(name: str, seed: int) -> Data:
    raw = LOADERS[name]()
    rng = np.random.default_rng(seed)
    n, p = raw.data.shape
    noise = np.column_stack([rng.permutation(column) for column in raw.data.T])
    X = np.hstack([raw.data, noise])
    names = [str(c).replace("/", " per ") for c in raw.feature_names]
    made = Data(name, X, raw.target, [*names, *(f"noise {i}" for i in range(p))],
                np.zeros(2 * p, bool), name == "diabetes")  # fmt: skip
    costs = []
    for split in range(10):
        rows = train_test_split(np.arange(n), test_size=0.3, random_state=split)
        fitted = made.model().fit(X[rows[0]], raw.target[rows[0]])
        found = permutation_importance(
            fitted, X[rows[1]], raw.target[rows[1]], n_repeats=N_PERMUTED, random_state=split
        )
        costs.append(found.importances_mean)
    mean, error = np.mean(costs, axis=0), np.std(costs, axis=0, ddof=1) / np.sqrt(len(costs))
    informative = (mean > 2 * error) & made.is_original
    return Data(name, X, raw.target, made.columns, informative, made.is_regression)


def history(it: Data, n_runs: int, seed: int) -> tuple[list[str], np.ndarray]:
    """What runs would log: their param `features`, and their score."""
    rng = np.random.default_rng(seed)
    texts, scores = [], []
    while len(texts) < n_runs:
        chosen = rng.random(it.X.shape[1]) < rng.uniform(0.2, 0.8)
        if chosen.sum() > 1:
            texts.append(",".join(np.array(it.columns)[chosen]))
            scores.append(it.score(chosen, 0))
    return texts, np.array(scores)


def suggested(it: Data, texts: list[str], scores: np.ndarray, seed: int) -> Chosen:
    flags = items_of("features", texts) or {}
    trials = pd.DataFrame(
        {f"params.{flag}": pd.array([t in used for t in texts], "boolean")
         for flag, used in flags.items()}
    ).assign(task=it.name, value=-scores)  # fmt: skip
    choice = {"type": "categorical", "choices": [False, True]}
    space = SearchSpace.from_dict(dict.fromkeys(flags, choice))
    best = propose(trials, space, task=it.name, n=5, rng=np.random.default_rng(seed))[0]
    return np.isin(it.columns, str(folded(best)["features"]).split(","))


def selected(it: Data, how: str, n: int) -> Chosen:
    """What is selected by looking at the rows, which the history's methods never see."""
    X = StandardScaler().fit_transform(it.X)
    if how == "LASSO":
        model = (
            LassoCV(random_state=0)
            if it.is_regression
            else LogisticRegressionCV(
                l1_ratios=(1.0,), solver="saga", max_iter=300, Cs=8, use_legacy_attributes=False
            )
        )
        return np.asarray(SelectFromModel(model).fit(X, it.y).get_support())
    if how == "RFE":
        model = Ridge() if it.is_regression else LogisticRegression(max_iter=500)
        return np.asarray(RFE(model, n_features_to_select=n).fit(X, it.y).get_support())
    test = f_regression if it.is_regression else f_classif
    return np.asarray(SelectKBest(test, k=n).fit(X, it.y).get_support())


def measures(it: Data, chosen: Chosen) -> list[float]:
    """Precision, precision of originals, recall, number of columns, score."""
    hit = (chosen & it.informative).sum()
    return [
        hit / max(chosen.sum(), 1),
        (chosen & it.is_original).sum() / max(chosen.sum(), 1),
        hit / max(it.informative.sum(), 1),
        float(chosen.sum()),
        float(np.mean([it.score(chosen, seed) for seed in range(1, 4)])),
    ]


def compare(name: str, n_runs: int, seed: int) -> dict[str, list[float]]:
    """Method -> `measures`."""
    it = data(name, seed)
    texts, scores = history(it, n_runs, seed)
    ours = suggested(it, texts, scores, seed)
    best = np.isin(it.columns, texts[int(np.argmax(scores))].split(","))
    ways: dict[str, Callable[[], Chosen]] = {
        "suggested": lambda: ours,
        "best of history": lambda: best,
        "all columns": lambda: np.ones(len(it.columns), bool),
        "LASSO": lambda: selected(it, "LASSO", 0),
        "RFE, as many": lambda: selected(it, "RFE", int(ours.sum())),
        "SelectKBest, as many": lambda: selected(it, "SelectKBest", int(ours.sum())),
    }
    return {way: measures(it, choose()) for way, choose in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="*", choices=[*LOADERS], default=[*LOADERS])
    asked = parser.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")
    threadpool_limits(1)  # so small matrices gain nothing from threads, and wait for them
    head = ["precision", "original", "recall", "columns", "score"]
    for name in asked.data:
        found = [compare(name, asked.runs, seed) for seed in range(asked.seeds)]
        n_informative = int(data(name, 0).informative.sum())
        print(f"\n{name}: {n_informative} informative columns; mean of {asked.seeds} histories")
        print(f"{'':22}" + "".join(f"{title:>11}" for title in head) + f"{'loss ratio':>12}")
        rows = {way: np.mean([one[way] for one in found], axis=0) for way in found[0]}
        base = 1 - rows["best of history"][-1]
        for way, row in rows.items():
            print(
                f"{way:22}" + "".join(f"{v:11.3f}" for v in row) + f"{(1 - row[-1]) / base:12.3f}"
            )


if __name__ == "__main__":
    main()
