"""Several objectives at once: which of many are not beaten in all of them, and what one more adds.

values: `(n, k)` of k objectives, each minimised
front:  a value is of the first front if no other is at least as good in all objectives and better
        in one; of the second if only those of the first are; and so on

What a set Y adds up to is the volume that it dominates within a reference r. Scalarised at random
(Golovin and Zhang, 2020), it is a mean of maxima, so that a batch can be chosen as for a single
objective:

    volume(Y) ~ E_w max_{y in Y} min_i (max(0, r_i - y_i) / w_i)^k,  w uniform on the unit sphere
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def fronts(values: Matrix) -> NDArray[np.int64]:
    """The front `(n,)` that each of the values `(n, k)` is of; 1 is the best."""
    found = np.zeros(len(values), dtype=np.int64)
    no_worse = np.asarray((values[:, None] <= values).all(axis=2))
    dominates = no_worse & ~no_worse.T
    front = 0
    while (left := found == 0).any():
        front += 1
        beaten = dominates[left].any(axis=0)
        found[left & ~beaten] = front
    return found


def directions(n: int, k: int, rng: np.random.Generator) -> Matrix:
    """`n` random weights `(n, k)`, uniform on the unit sphere where all are positive."""
    away = np.abs(rng.normal(size=(n, k)))
    return np.asarray(np.maximum(away / np.linalg.norm(away, axis=1, keepdims=True), 1e-6))


def scalarised(values: NDArray[np.float64], weights: Matrix, reference: Vector) -> Matrix:
    """Values `(..., k)` by each of the weights `(w, k)`: `(..., w)`, to be minimised, never > 0.

    Beyond the reference `(k,)` in one objective, all is 0.
    """
    inside = np.maximum(reference - values, 0.0)
    k = values.shape[-1]
    least = inside[..., None, 0] / weights[:, 0]
    for i in range(1, k):
        np.minimum(least, inside[..., None, i] / weights[:, i], out=least)
    return np.asarray(-(least**k))


def hypervolume(values: Matrix, reference: Vector) -> float:
    """The volume that the values `(n, k)` dominate within the reference `(k,)`, exactly.

    By slices along the last objective, for a few objectives and some hundred values.
    """
    inside = values[(values < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    if values.shape[1] == 1:
        return float(reference[0] - inside.min())
    order = np.argsort(inside[:, -1], kind="stable")
    levels = np.append(inside[order, -1], reference[-1])
    volume = 0.0
    for i in range(len(order)):
        height = levels[i + 1] - levels[i]
        if height > 0:
            volume += height * hypervolume(inside[order[: i + 1], :-1], reference[:-1])
    return volume
