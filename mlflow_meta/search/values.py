"""The compiled walk through the trees of a `TreeSurface`.

It stands apart from the surfaces because importing numba takes longer than importing all of them.

n, P, t, m, L: rows; parameters; trees; nodes of all trees together; levels of the largest parameter
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.compiled import compiled

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Indices = NDArray[np.uint64]  # without a sign, as machine code need not ask whether it is negative


@compiled
def leaves(
    levels: Indices,
    roots: Indices,
    param: Indices,
    goes_left: NDArray[np.uint8],
    children: Indices,
    value: Vector,
) -> Matrix:
    """What every tree adds to every row, `(n, t)`.

    All rows take a step before any takes the next: whereto does not hang on the row before, so that
    a processor works on many at once.

    Args:
        levels: `(P, n)` one row in every column; nothing checks that `goes_left` has them.
        roots: `(t,)` the first node of every tree.
        param: `(m,)` what a node asks for; anything in a leaf.
        goes_left: `(m, L)` 0 or 1.
        children: `(m, 2)` the next node on the right and on the left; of a leaf the leaf itself.
        value: `(m,)` what a leaf adds.
    """
    n = levels.shape[1]
    found = np.empty((n, len(roots)))
    at = np.empty(n, dtype=np.uint64)
    for t in range(len(roots)):
        at[:] = roots[t]
        moves = True
        while moves:
            moves = False
            for i in range(n):
                node = at[i]
                at[i] = children[node, goes_left[node, levels[param[node], i]]]
                moves |= at[i] != node
        for i in range(n):
            found[i, t] = value[at[i]]
    return found
