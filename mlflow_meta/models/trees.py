"""Gradient-boosted trees by LightGBM, as an ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mlflow_meta.models.forms import Trees, joined
from mlflow_meta.models.regressor import Groups, Matrix, Prediction, Vector

if TYPE_CHECKING:  # elsewhere where it is needed: it takes scikit-learn along, and a second
    import lightgbm as lgb

N_MEMBERS = 5
N_ROUNDS = 100
MAX_DEPTH = 5
FEW = 64  # rows up to which the trees are walked here
_PARAMS = {
    "objective": "regression",
    "learning_rate": 0.08,
    "num_leaves": 8,
    "max_depth": MAX_DEPTH,
    "min_data_in_leaf": 4,
    "lambda_l2": 1.0,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "min_data_in_bin": 1,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,  # a few hundred rows: threads would cost more than they bring
    "verbosity": -1,
}


class BoostedTrees:
    """An ensemble of boosters that differ in the rows and columns they draw.

    The trees are kept small: few runs do not ask for more, and small trees can be searched
    exactly. mean = mean over the members; variance = their disagreement + the mean squared error
    on rows that a booster has not seen.
    """

    def fit(self, X: Matrix, y: Vector, *, groups: Groups, seed: int) -> None:
        """See `Regressor.fit`."""
        import lightgbm as lgb

        del groups
        rng = np.random.default_rng(seed)
        texts: list[str] = []
        unseen_errors: list[float] = []
        for _ in range(N_MEMBERS):
            rows = rng.integers(len(y), size=len(y))
            params = {**_PARAMS, "seed": int(rng.integers(2**31))}
            booster = lgb.train(params, lgb.Dataset(X[rows], y[rows]), N_ROUNDS)
            texts.append(booster.model_to_string())
            unseen = np.setdiff1d(np.arange(len(y)), rows)
            errors = _predict(booster, X[unseen]) - y[unseen] if len(unseen) else np.array([1.0])
            unseen_errors.append(float(np.mean(errors**2)))
        self._noise = float(np.mean(unseen_errors))
        self._know(texts)

    def _know(self, texts: Sequence[str]) -> None:
        """Take over the members' texts: so a fitted and a loaded model are one and the same."""
        self._texts = list(texts)
        self._members: list[lgb.Booster] = []
        self._walk = _Walk([_trees(text) for text in texts])

    def predict(self, X: Matrix) -> Prediction:
        """See `Regressor.predict`."""
        outputs = self._walk.outputs(X) if len(X) <= FEW else self._outputs(X)
        return Prediction(outputs.mean(axis=0), np.sqrt(outputs.var(axis=0) + self._noise))

    def _outputs(self, X: Matrix) -> Matrix:
        """What LightGBM says of each row, `(members, n)`."""
        import lightgbm as lgb

        if not self._members:
            self._members = [lgb.Booster(model_str=text) for text in self._texts]
        return np.stack([_predict(member, X) for member in self._members])

    def form(self) -> Trees:
        """See `Formed.form`."""
        return self._form(np.full(N_MEMBERS, 1 / N_MEMBERS))

    def draw(self, rng: np.random.Generator) -> Trees:
        """See `Formed.draw`: the members weighted as by a Bayesian bootstrap (Rubin, 1981)."""
        return self._form(rng.dirichlet(np.ones(N_MEMBERS)))

    def _form(self, shares: Vector) -> Trees:
        """For shares `(members,)` that sum to 1."""
        return joined([_trees(text) for text in self._texts], shares)

    def save(self) -> dict[str, bytes]:
        """See `Regressor.save`."""
        texts = {f"trees-{i}.txt": text.encode() for i, text in enumerate(self._texts)}
        return {**texts, "trees-noise.txt": repr(self._noise).encode()}

    def load(self, files: Mapping[str, bytes]) -> None:
        """See `Regressor.load`."""
        self._know([files[f"trees-{i}.txt"].decode() for i in range(N_MEMBERS)])
        self._noise = float(files["trees-noise.txt"].decode())


def _predict(booster: lgb.Booster, X: Matrix) -> Vector:
    return np.asarray(booster.predict(X, num_threads=1), dtype=float)


class _Walk:
    """LightGBM's answer without LightGBM, to the last bit: for a few rows as fast, and loaded.

    To import it takes a second or two, which is most of what it takes to load a served model.
    """

    def __init__(self, members: Sequence[Trees]) -> None:
        """Takes the trees of each member, in its order."""
        self._ends = np.cumsum([len(trees.roots) for trees in members])
        whole = joined(members, np.ones(len(members)))
        is_leaf = whole.feature < 0
        self._trees = replace(
            whole,
            feature=np.where(is_leaf, 0, whole.feature),
            threshold=np.where(is_leaf, np.inf, whole.threshold),  # a leaf leads to itself
        )

    def outputs(self, X: Matrix) -> Matrix:
        """What each member says of each row, `(members, n)`."""
        trees = self._trees
        rows = np.arange(len(X))[:, None]
        node = np.broadcast_to(trees.roots, (len(X), len(trees.roots)))
        for _ in range(MAX_DEPTH):
            below = X[rows, trees.feature[node]] <= trees.threshold[node]
            node = np.where(below, trees.left[node], trees.right[node])
        leaves = np.split(trees.value[node], self._ends[:-1], axis=1)
        # One after the other, as LightGBM adds them: a sum in pairs would differ in the last bits.
        return np.stack([np.cumsum(own, axis=1)[:, -1] for own in leaves])


def _trees(text: str) -> Trees:
    """A booster's trees, of numbers none of which is missing, from its own text."""
    parts = [_tree(part) for part in text.split("\nTree=")[1:]]
    return joined(parts, np.ones(len(parts)))


def _tree(text: str) -> Trees:
    """One tree from its section: nodes that ask first, then the leaves, which it counts as ~i."""
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def numbers(name: str) -> Vector:
        return np.array(lines.get(name, "").split(), dtype=float)

    leaves = numbers("leaf_value")
    n_asking = len(leaves) - 1
    own = np.arange(n_asking, n_asking + len(leaves))
    left, right = numbers("left_child").astype(int), numbers("right_child").astype(int)
    assert lines["num_cat"] == "0", "features are numbers"
    return Trees(
        constant=0.0,
        roots=np.zeros(1, dtype=np.int64),
        feature=np.concatenate([numbers("split_feature"), np.full(len(leaves), -1)]).astype(int),
        threshold=np.concatenate([numbers("threshold"), np.zeros(len(leaves))]),
        left=np.concatenate([np.where(left < 0, n_asking + ~left, left), own]),
        right=np.concatenate([np.where(right < 0, n_asking + ~right, right), own]),
        value=np.concatenate([np.zeros(n_asking), leaves]),
    )
