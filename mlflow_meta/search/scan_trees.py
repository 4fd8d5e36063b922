"""Blocks of a `TreeSurface`: from one to the next, only the trees that change are added up anew.

l:      classes of levels, of all parameters together
leaf:   of any tree; a row falls into it where each of its classes is `allowed (l,)` by the leaf
piece:  at most 64 neighbouring leaves of a tree, as the bits of a word; adds 0 outside of them
state:  of a piece: the leaves that the prefix allows; given it, the suffix decides
row:    of a table: what a piece in a state adds to each row of a block

The table is rounded down to whole multiples of `unit` in 16 bits, whose sums are exact and never
above the value: so they may be carried from block to block, and rule out what they are above the
bar with. A block that has a row which they do not rule out is valued in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.compiled import compiled
from mlflow_meta.search.leaves import Leaves, Piece, leaves_of, pieces_of
from mlflow_meta.search.surface import Matrix, Places, TreeSurface, Vector, n_rows
from mlflow_meta.search.walk import Classes, Found, Split, advance, note

Codes = NDArray[np.int16]

N_CODES = 65_000  # of the 2^16, what the sum of all trees may spread over
PER_BLOCK = 2048  # rows of a block at most
PER_LINE = 64  # codes that are added at once; a table's row is padded to a multiple
PER_RUN = 16  # rows of a block that are valued at once
N_CELLS = 2**21  # leaves times rows of a block at most: bounds the tables


class _Forest(NamedTuple):
    """Tables of a split surface.

    Attributes:
        sizes: `(m,)` classes of each prefix parameter.
        starts: `(m,)` where each begins among the classes of the prefix.
        counts: `(l',)` levels in each of these.
        begin: `(pieces,)` where each piece's first state is in `following`.
        following: At a state's place plus a class: the next state's place; of the last parameter,
            its row.
        is_open: `following`'s length: whether the state at that place has more than one follower.
        narrow: `(rows, width)` codes; row 0 adds nothing.
        wide: `(rows, n_block)` what the codes are of.
        scalars: constant; `unit`; what codes of 0 stand for; what float64 may be off by.
    """

    sizes: Places
    starts: Places
    counts: Places
    begin: Places
    following: NDArray[np.int32]
    is_open: NDArray[np.bool_]
    narrow: Codes
    wide: Matrix
    scalars: Vector


class TreeBlocks:
    """See `Blocks`."""

    split: Split

    def __init__(self, surface: TreeSurface, classes: Classes, bar: float) -> None:
        leaves = leaves_of(surface)
        n_splits = np.bincount(surface.param[surface.param >= 0], minlength=len(surface.sizes))
        weight = n_splits / np.maximum(np.array(surface.sizes) - 1.0, 1.0)
        limit = min(PER_BLOCK, max(N_CELLS // len(leaves.value), 1), n_rows(surface.sizes) - 1)
        self.split = Split.by(surface.sizes, weight.tolist(), limit)
        pieces = pieces_of(leaves, surface.sizes, self.split)
        self._forest = _forest(surface.constant, leaves, pieces, classes, self.split, bar)

    def search(self, found: Found, first: int, last: int, bar: float) -> tuple[int, int, int]:
        """See `Blocks`."""
        return _search(self._forest, found, *self.split.start(first), (first, last), bar)


def same_trees(surface: TreeSurface) -> list[Places]:
    """The class `(n_p,)` of every level: two that go the same way at all nodes are one."""
    found = []
    for p, size in enumerate(surface.sizes):
        ways = surface.goes_left[surface.param == p, :size]
        ways = np.concatenate([ways, np.zeros((1, size), dtype=bool)])
        found.append(np.unique(ways, axis=1, return_inverse=True)[1].reshape(-1))
    return found


def _forest(
    constant: float,
    leaves: Leaves,
    pieces: list[Piece],
    classes: Classes,
    split: Split,
    bar: float,
) -> _Forest:
    edges = np.flatnonzero(np.diff(leaves.tree, prepend=-1))
    low, high = np.minimum.reduceat(leaves.value, edges), np.maximum.reduceat(leaves.value, edges)
    size = abs(constant) + float(np.maximum(np.abs(low), np.abs(high)).sum())
    off = float(4 * (len(low) + 8) * np.finfo(np.float64).eps * size)
    # A leaf so high that no row in it gets below the bar need not say how high.
    high = np.minimum(high, low + max(bar - constant - float(low.sum()), 0.0) + off)
    unit = max(float((high - low).sum()) / (N_CODES - 2 * len(low)), off, 1e-300)
    middle = (low + high) / 2.0
    code = np.floor((np.minimum(leaves.value, high[leaves.tree]) - middle[leaves.tree]) / unit)
    codes, values = np.append(code, 0.0).astype(np.int16), np.append(leaves.value, 0.0)
    n_rows, n_block = 1 + sum(len(piece.states) for piece in pieces), len(split.block)
    narrow = np.zeros((n_rows, -(-n_block // PER_LINE) * PER_LINE), dtype=np.int16)
    wide = np.zeros((n_rows, n_block))
    row = 1
    for piece in pieces:
        leaf, rows = piece.leaf(), slice(row, row := row + len(piece.states))
        wide[rows], narrow[rows, :n_block] = values[leaf], codes[leaf]
        narrow[rows, n_block:] = codes[leaf[:, -1:]]
    begin, following, is_open = _linked(pieces, split)
    return _Forest(
        sizes=np.array(split.prefix_sizes, dtype=np.int64),
        starts=np.cumsum([0, *split.prefix_sizes])[:-1].astype(np.int64),
        counts=np.concatenate(classes.of_prefix(split)),
        begin=begin,
        following=following,
        is_open=is_open,
        narrow=narrow,
        wide=wide,
        scalars=np.array([constant, unit, constant + float(middle.sum()), off]),
    )


def _linked(
    pieces: list[Piece], split: Split
) -> tuple[Places, NDArray[np.int32], NDArray[np.bool_]]:
    """`begin`, `following` and `is_open` of a `_Forest`."""
    n_states = np.array([[len(table) for table in piece.following] for piece in pieces])
    cells = (n_states * np.array(split.prefix_sizes)).T  # of each parameter, of each piece
    places = (np.cumsum(cells) - cells.reshape(-1)).reshape(cells.shape)
    rows = np.cumsum([1, *(len(piece.states) for piece in pieces)])[:-1]
    widths = (*split.prefix_sizes[1:], 1)
    linked, is_open = [], []
    for j, (width, base) in enumerate(zip(widths, [*places[1:], rows], strict=True)):
        for t, piece in enumerate(pieces):
            after = piece.following[j]
            linked.append((base[t] + after * width).reshape(-1))
            is_open.append(np.repeat(np.ptp(after, axis=1) > 0, after.shape[1]))
    return places[0], np.concatenate(linked).astype(np.int32), np.concatenate(is_open)


@compiled
def _search(
    forest: _Forest, found: Found, digits: Places, ways: Places, span: tuple[int, int], bar: float
) -> tuple[int, int, int]:
    step, last = span
    m, n_pieces, n_block = len(forest.sizes), len(forest.begin), forest.wide.shape[1]
    limit = _limit(forest.scalars, bar)
    at = np.empty((m, n_pieces), dtype=np.int64)
    at[0] = forest.begin
    everyone, undecided = np.arange(n_pieces), np.arange(n_pieces)
    rows = np.zeros(n_pieces, dtype=np.int64)
    gone, come = np.empty(n_pieces + 1, np.int64), np.empty(n_pieces + 1, np.int64)
    total = np.zeros(forest.narrow.shape[1], dtype=np.int16)
    changed, n, n_passed, n_undecided = -1, 0, 0, 0
    while step < last and n + n_block <= len(found.value):
        n_passed += _n_levels(forest, digits)
        among = undecided[:n_undecided]
        if changed < m - 1:
            n_undecided = _enter(forest, at, digits, max(changed, 0), undecided)
            among = everyone
        n_changed = 0
        for t in among:
            row = forest.following[at[m - 1, t] + digits[m - 1]]
            gone[n_changed], come[n_changed] = rows[t], row
            n_changed += row != rows[t]
            rows[t] = row
        gone[n_changed] = come[n_changed] = 0
        if _exchange(total, forest.narrow, gone, come, n_changed) <= limit:
            n = _value(forest, found, n, (step, limit, bar), rows, total)
        changed = advance(digits, ways, forest.sizes)
        step += 1
    return step, n, n_passed


@compiled
def _limit(scalars: Vector, bar: float) -> float:
    """The code that the total of a row below the bar can't exceed."""
    _, unit, base, off = scalars
    limit: float = (bar - base + off) / unit + 1.0
    return limit


@compiled
def _n_levels(forest: _Forest, digits: Places) -> int:
    """Prefixes of levels that a prefix of classes stands for."""
    n = 1
    for j in range(len(digits)):
        n *= forest.counts[forest.starts[j] + digits[j]]
    return n


@compiled
def _enter(forest: _Forest, at: Places, digits: Places, changed: int, undecided: Places) -> int:
    """Bring `at (m, pieces)` up to date; the number of pieces that the last class matters to.

    Args:
        forest: The tables.
        at: The state's place before each class.
        digits: The prefix.
        changed: The first class that has changed.
        undecided: Where to put which these are.
    """
    m = len(digits)
    for j in range(changed, m - 1):
        for t in range(at.shape[1]):
            at[j + 1, t] = forest.following[at[j, t] + digits[j]]
    n = 0
    for t in range(at.shape[1]):
        undecided[n] = t
        n += forest.is_open[at[m - 1, t]]
    return n


@compiled
def _exchange(total: Codes, narrow: Codes, gone: Places, come: Places, n: int) -> int:
    """Put `n` rows of the table in the place of others, two at a time; the lowest total then."""
    for c in range(0, n, 2):
        come0, come1 = narrow[come[c]], narrow[come[c + 1]]
        gone0, gone1 = narrow[gone[c]], narrow[gone[c + 1]]
        for i in range(len(total)):
            total[i] = total[i] + ((come0[i] - gone0[i]) + (come1[i] - gone1[i]))
    lowest: int = total[0]
    for i in range(len(total)):
        lowest = min(lowest, total[i])
    return lowest


@compiled
def _value(
    forest: _Forest,
    found: Found,
    n: int,
    at: tuple[int, float, float],
    rows: Places,
    total: Codes,
) -> int:
    """Value the runs of a block that have a total within the limit, and `note` what is found.

    Args:
        forest: The tables.
        found: See `note`.
        n: See `note`.
        at: The step; the limit; the bar.
        rows: `(pieces,)` of the table.
        total: `(width,)`.
    """
    step, limit, bar = at
    constant, off = forest.scalars[0], forest.scalars[3]
    values = np.empty(PER_RUN)
    for start in range(0, forest.wide.shape[1], PER_RUN):
        if total[start : start + PER_RUN].min() <= limit:
            values[:] = constant
            run = forest.wide[:, start : start + PER_RUN]
            for row in rows:
                for i in range(run.shape[1]):
                    values[i] += run[row, i]
            n = note(found, n, (step, start), values[: run.shape[1]], bar - off)
    return n
