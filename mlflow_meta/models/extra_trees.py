"""Extremely randomised trees: steps and interactions that no smooth function follows.

Grown by scikit-learn, and kept as plain arrays, which need no pickle.

node:   a number; `feature[node]` is the column that it asks about, -1 in a leaf
left:   `left[node]` is the next node where `X[:, feature] <= threshold`, otherwise `right[node]`
root:   `(t,)` the first node of every tree
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.models.forms import Trees
from mlflow_meta.models.regressor import Groups, Matrix, Prediction, Vector

N_TREES = 100
MAX_ROWS = 20_000  # that one tree is grown from; each draws its own
_MANY_ROWS = 300  # from which on it takes longer to grow the trees than to share them among cores
_MAX_ROWS_AT_ONCE = 2000  # so that `(rows, t)` stays small


class ExtraTrees:
    """mean = mean over the trees; variance = their disagreement + noise, see `fit`."""

    def fit(self, X: Matrix, y: Vector, *, groups: Groups, seed: int) -> None:
        """See `Regressor.fit`."""
        from sklearn.ensemble import ExtraTreesRegressor  # slow, and of no use to a fitted model

        del groups
        # A category's column has one place to split: without a bootstrap all trees would be alike.
        forest = ExtraTreesRegressor(
            N_TREES,
            bootstrap=True,
            max_samples=MAX_ROWS if len(X) > MAX_ROWS else None,
            oob_score=True,
            n_jobs=-1 if len(X) >= _MANY_ROWS else None,
            random_state=seed,
        )
        trees = [member.tree_ for member in forest.fit(X, y).estimators_]
        sizes = np.array([tree.node_count for tree in trees])
        self._roots: NDArray[np.int64] = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        shift = np.repeat(self._roots, sizes)
        left = np.concatenate([tree.children_left for tree in trees])
        right = np.concatenate([tree.children_right for tree in trees])
        is_leaf = left < 0
        own = np.arange(len(left))
        # A leaf leads to itself, so that all trees can be walked for as long as the deepest.
        self._left = np.where(is_leaf, own, left + shift)
        self._right = np.where(is_leaf, own, right + shift)
        self._feature = np.where(is_leaf, 0, np.concatenate([tree.feature for tree in trees]))
        self._threshold = np.concatenate([tree.threshold for tree in trees])
        self._value = np.concatenate([tree.value[:, 0, 0] for tree in trees])
        self._depth = max(int(tree.max_depth) for tree in trees)
        # What trees that have not seen a row are off by, beyond their disagreement.
        missed = float(np.mean((y - forest.oob_prediction_) ** 2))
        some = X[:: -(-len(X) // _MAX_ROWS_AT_ONCE)]
        self._noise = max(missed - float(self._walk(some).var(axis=1).mean()), 0.0)

    def predict(self, X: Matrix) -> Prediction:
        """See `Regressor.predict`."""
        starts = range(0, max(len(X), 1), _MAX_ROWS_AT_ONCE)
        outputs = np.concatenate([self._walk(X[i : i + _MAX_ROWS_AT_ONCE]) for i in starts])
        return Prediction(outputs.mean(axis=1), np.sqrt(outputs.var(axis=1) + self._noise))

    def _walk(self, X: Matrix) -> Matrix:
        """What each tree says of each row, `(n, t)`."""
        narrow = X.astype(np.float32)  # as scikit-learn compares them
        rows = np.arange(len(X))[:, None]
        node = np.broadcast_to(self._roots, (len(X), len(self._roots)))
        for _ in range(self._depth):
            below = narrow[rows, self._feature[node]] <= self._threshold[node]
            node = np.where(below, self._left[node], self._right[node])
        return np.asarray(self._value[node])

    def form(self) -> Trees:
        """See `Formed.form`."""
        return self._form(np.full(len(self._roots), 1.0 / len(self._roots)))

    def draw(self, rng: np.random.Generator) -> Trees:
        """See `Formed.draw`: the trees weighted as by a Bayesian bootstrap (Rubin, 1981)."""
        return self._form(rng.dirichlet(np.ones(len(self._roots))))

    def _form(self, shares: Vector) -> Trees:
        """For shares `(t,)` of the trees."""
        sizes = np.diff([*self._roots, len(self._value)])
        is_leaf = self._left == np.arange(len(self._left))
        return Trees(
            constant=0.0,
            roots=self._roots,
            feature=np.where(is_leaf, -1, self._feature),
            threshold=self._threshold,
            left=self._left,
            right=self._right,
            value=self._value * np.repeat(shares, sizes),
            is_narrow=True,
        )

    def save(self) -> dict[str, bytes]:
        """See `Regressor.save`."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            roots=self._roots,
            left=self._left,
            right=self._right,
            feature=self._feature,
            threshold=self._threshold,
            value=self._value,
            depth=self._depth,
            noise=self._noise,
        )
        return {"extra_trees.npz": buffer.getvalue()}

    def load(self, files: Mapping[str, bytes]) -> None:
        """See `Regressor.load`."""
        with np.load(io.BytesIO(files["extra_trees.npz"]), allow_pickle=False) as state:
            self._roots, self._left, self._right = state["roots"], state["left"], state["right"]
            self._feature, self._threshold = state["feature"], state["threshold"]
            self._value, self._depth = state["value"], int(state["depth"])
            self._noise = float(state["noise"])
