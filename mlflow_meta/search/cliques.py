"""Cliques: boxes of which no two have a row in common, so that a row falls into one at most.

The leaves of several trees, and levels, whose boxes are disjoint two by two, have shares that sum
to 1 at most in whatever is a mixture of rows; the linear program over single trees knows it of the
leaves of each tree alone. Cliques that its solution violates are grown greedily from two boxes,
that of the largest share first, as solvers of integer programs do it too; and then lifted by all
boxes without a share that fit.

N:  boxes: all leaves, and after them all levels, as the box of the rows that have it
n:  those of them that have a share
c:  cliques
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.boxes import meets
from mlflow_meta.search.compiled import compiled

Vector = NDArray[np.float64]
Places = NDArray[np.int64]
Words = NDArray[np.uint64]
Mask = NDArray[np.bool_]

MIN_SHARE = 1e-3  # of boxes that cliques are grown from
MIN_EXCESS = 0.02  # by which the shares in a clique exceed 1
MAX_CLIQUES = 1500  # that are found at once
N_SEEDS = 2  # boxes that a clique may begin with beside a given one


@compiled
def violated(
    words: Words, share: Vector, group: Places, word_first: Places
) -> tuple[Places, Places]:
    """Cliques whose shares sum to more than 1: `(c + 1,)` where each begins, and the boxes.

    Args:
        words: `(N, W)`.
        share: `(N,)`.
        group: `(N,)` boxes of one are disjoint: leaves of a factor, levels of a parameter.
        word_first: Where each parameter's words begin.
    """
    order = np.argsort(-share)
    n = int(np.sum(share > MIN_SHARE))
    held = order[:n]
    apart = _apart(words[held], group[held], word_first)
    digits = np.empty(n, np.uint64)  # sums of them tell sets apart
    for i in range(n):
        digits[i] = np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(i * i * i)
    first, member, seen = [0], [np.int64(0)], {np.uint64(0)}
    member.pop()
    for i in range(n):
        n_tried = 0
        for j in range(n):
            if n_tried == N_SEEDS or len(first) > MAX_CLIQUES:
                break
            if group[held[i]] == group[held[j]] or not apart[i, j]:
                continue
            n_tried += 1
            own = _grown(apart, i, j)
            key = digits[own].sum()
            if share[held[own]].sum() < 1.0 + MIN_EXCESS or key in seen:
                continue
            seen.add(key)
            for box in _lifted(words, group, word_first, held[own], order[n:]):
                member.append(box)
            first.append(len(member))
    return np.array(first), np.array(member)


@compiled
def _apart(words: Words, group: Places, word_first: Places) -> Mask:
    """`(n, n)` which boxes have no row in common."""
    n = len(words)
    apart = np.zeros((n, n), np.bool_)
    for i in range(n):
        for j in range(i):
            if group[i] == group[j] or not meets(words[i], words[j], word_first):
                apart[i, j] = apart[j, i] = True
    return apart


@compiled
def _grown(apart: Mask, i: int, j: int) -> Places:
    """The clique of `i`, `j` and then the first that is apart from all before, and so on."""
    own, size = np.empty(len(apart), np.int64), 2
    own[0], own[1] = i, j
    room = apart[i] & apart[j]
    for x in range(len(apart)):
        if room[x]:
            own[size] = x
            size += 1
            room &= apart[x]
    return own[:size]


@compiled
def _lifted(
    words: Words, group: Places, word_first: Places, clique: Places, others: Places
) -> Places:
    """The clique, and all others that fit, one after the other."""
    own, size = np.empty(len(clique) + len(others), np.int64), len(clique)
    own[:size] = clique
    for box in others:
        fits = True
        for other in own[:size]:
            if group[box] != group[other] and meets(words[box], words[other], word_first):
                fits = False
                break
        if fits:
            own[size] = box
            size += 1
    return own[:size].copy()
