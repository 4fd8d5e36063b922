"""What a fitted regressor computes, as a formula that a search can take apart.

X:      `(d,)` one row of features
d, t, m, h: features; trees; nodes of all trees together; hidden units

A search over billions of configurations does not ask a model about each: it needs the sum, the
trees or the units that the prediction is made of. A regressor that can give them is `Formed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Additive:
    """f(X) = constant + sum_j (linear_j X_j + square_j X_j^2).

    Attributes:
        constant: What is there without any feature.
        linear: `(d,)`.
        square: `(d,)`.
    """

    constant: float
    linear: Vector
    square: Vector

    def at(self, X: Matrix) -> Vector:
        """F at `X (n, d)`, `(n,)`."""
        return np.asarray(self.constant + X @ self.linear + X**2 @ self.square)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """f(X) = constant + sum of the leaves, one of each tree, that X falls into.

    In a node that is no leaf, X goes left where `X[feature] <= threshold`.

    Attributes:
        constant: What is there without any tree.
        roots: `(t,)` the first node of every tree.
        feature: `(m,)`; -1 in a leaf.
        threshold: `(m,)`.
        left: `(m,)` the next node; of a leaf the leaf itself.
        right: `(m,)`, likewise.
        value: `(m,)` what a leaf adds, weights of the trees included.
        is_narrow: Whether X is compared as float32.
    """

    constant: float
    roots: Places
    feature: Places
    threshold: Vector
    left: Places
    right: Places
    value: Vector
    is_narrow: bool = False

    @property
    def n_answers(self) -> int:
        """Answers that a table has of every node at every level that the trees tell apart."""
        asks = self.feature >= 0
        asked = np.stack([self.feature[asks].astype(float), self.threshold[asks]])
        levels = np.bincount(np.unique(asked, axis=1)[0].astype(np.int64), minlength=1) + 1
        return len(self.feature) * int(levels.max())

    def at(self, X: Matrix) -> Vector:
        """F at `X (n, d)`, `(n,)`."""
        narrow = X.astype(np.float32) if self.is_narrow else X
        rows = np.arange(len(X))[:, None]
        node = np.broadcast_to(self.roots, (len(X), len(self.roots)))
        while np.any(asks := self.feature[node] >= 0):
            below = narrow[rows, np.maximum(self.feature[node], 0)] <= self.threshold[node]
            node = np.where(asks, np.where(below, self.left[node], self.right[node]), node)
        return np.asarray(self.constant + self.value[node].sum(axis=1))


def joined(parts: Sequence[Trees], weights: Vector) -> Trees:
    """The weighted sum of some trees, of one kind, as one."""
    sizes = np.array([len(part.feature) for part in parts])
    starts = np.cumsum(sizes) - sizes

    def all_of(name: str, shifts: Vector | Places, factors: Vector | Places) -> NDArray[Any]:
        pieces = [
            getattr(part, name) * factor + shift
            for part, shift, factor in zip(parts, shifts, factors, strict=True)
        ]
        return np.concatenate(pieces)

    none, ones = np.zeros(len(parts), dtype=np.int64), np.ones(len(parts), dtype=np.int64)
    return Trees(
        constant=float(sum(w * part.constant for w, part in zip(weights, parts, strict=True))),
        roots=all_of("roots", starts, ones),
        feature=all_of("feature", none, ones),
        threshold=all_of("threshold", none, ones),
        left=all_of("left", starts, ones),
        right=all_of("right", starts, ones),
        value=all_of("value", none, weights),
        is_narrow=parts[0].is_narrow,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Relu:
    """f(X) = constant + sum_h out_h max(bias_h + X @ weights_h, 0).

    Attributes:
        constant: What is there without any unit.
        weights: `(d, h)`.
        bias: `(h,)`.
        out: `(h,)`.
    """

    constant: float
    weights: Matrix
    bias: Vector
    out: Vector

    def at(self, X: Matrix) -> Vector:
        """F at `X (n, d)`, `(n,)`."""
        hidden = np.maximum(X @ self.weights + self.bias, 0.0)
        return np.asarray(self.constant + hidden @ self.out)


Form = Additive | Trees | Relu


@runtime_checkable
class Formed(Protocol):
    """A regressor whose mean can be written down, and so be searched exactly."""

    def form(self) -> Form:
        """What `predict(X).mean` computes, up to rounding."""
        ...

    def draw(self, rng: np.random.Generator) -> Form:
        """A function that may be the true one, by what the regressor knows of its own doubts."""
        ...
