"""Blocks of a `ReluSurface`, filtered in 16-bit integers: two machine instructions a row and unit.

h:   hidden units; the `up` ones, of out > 0, come first
a:   prefix: u_h = bias_h + what its levels add
i:   suffix: s_hi = what its levels add

    |out_h| max(u_h + s_hi, 0) = |out_h| u_h + max(|out_h| s_hi, -|out_h| u_h)

so that all that depends on a and i is a maximum of two tables. Both are rounded to whole multiples
of `unit`, down where out > 0 and up where out < 0: their signed sum, which integers give exactly,
is never above the value in units. A tile of rows none of which gets below the bar that way is done
with; in any other one all rows are valued in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.compiled import compiled
from mlflow_meta.search.surface import Matrix, Places, ReluSurface, Vector
from mlflow_meta.search.walk import PER_TILE, Classes, Found, Split, advance, note, tiles

Codes = NDArray[np.int16]

N_CODES = 65_000  # of the 2^16, what the signed sum may spread over
PER_BLOCK = 16_384  # rows of a block at most
N_CELLS = 2**22  # units times rows of a block at most: bounds the tables
PER_GROUP = 8  # units that are added up before their sum is stored
PER_BATCH = 8  # prefixes that share a group's codes while the core's own memory holds them


class _Net(NamedTuple):
    """Tables of a split surface; units padded by such as add 0, each sign to `PER_GROUP`.

    Attributes:
        sizes: `(m,)` classes of each prefix parameter.
        starts: `(m,)` where each begins among the `l` classes of all.
        counts: `(l,)` levels in each class.
        table: `(l, h)` what a class of the prefix adds.
        bias: `(h,)`.
        out: `(h,)`.
        size: `(h,)` |out|.
        low: `(h,)` the lowest |out| s over the block.
        reach: `(h,)` the highest, above `low`.
        offset: `(h,)` added to the whole part of a quotient by `unit`: 1 where that has to round
            up, less the middle of the unit's codes.
        scalars: constant; unit; what float64 may be off by; signed sum of the middles.
        n_up: Units that add.
        narrow: `(tiles, h, PER_TILE)` codes of |out| s.
        wide: `(tiles, h, PER_TILE)` s.
        n_block: Rows in a block.
    """

    sizes: Places
    starts: Places
    counts: Places
    table: Matrix
    bias: Vector
    out: Vector
    size: Vector
    low: Vector
    reach: Vector
    offset: NDArray[np.int32]
    scalars: Vector
    n_up: int
    narrow: Codes
    wide: NDArray[np.float64]
    n_block: int


class ReluBlocks:
    """See `Blocks`."""

    split: Split

    def __init__(self, surface: ReluSurface, classes: Classes) -> None:
        surface = _grouped(surface)
        limit = min(PER_BLOCK, max(N_CELLS // len(surface.out), 1))
        self.split = Split.by(surface.sizes, [0.0] * len(surface.sizes), limit)
        self._net = _net(surface, classes, self.split)

    def search(self, found: Found, first: int, last: int, bar: float) -> tuple[int, int, int]:
        """See `Blocks`."""
        return _search(self._net, found, *self.split.start(first), (first, last), bar)


def same_relu(surface: ReluSurface) -> list[Places]:
    """The class `(n_p,)` of every level: two that add the same to all that counts are one."""
    counting = [np.where(surface.out == 0.0, 0.0, table) for table in surface.tables]
    return [np.unique(table, axis=0, return_inverse=True)[1].reshape(-1) for table in counting]


def _grouped(surface: ReluSurface) -> ReluSurface:
    up, down = np.flatnonzero(surface.out > 0), np.flatnonzero(surface.out < 0)
    order = np.concatenate([_padded(up), _padded(down)])

    def units(table: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(order < 0, 0.0, table[..., order])

    return ReluSurface(
        constant=surface.constant,
        tables=tuple(units(table) for table in surface.tables),
        bias=units(surface.bias),
        out=units(surface.out),
    )


def _padded(units: Places) -> Places:
    return np.pad(units, (0, -len(units) % PER_GROUP), constant_values=-1)


def _net(surface: ReluSurface, classes: Classes, split: Split) -> _Net:
    added = np.zeros((len(split.block), len(surface.out)))
    for column, p in enumerate(split.suffix):
        added += surface.tables[p][split.block[:, column]]
    n_up = int(np.flatnonzero(surface.out > 0).max(initial=-1)) // PER_GROUP * PER_GROUP + PER_GROUP
    sign = np.where(np.arange(len(surface.out)) < n_up, 1.0, -1.0)
    size = np.abs(surface.out)
    low, high = (size * added).min(axis=0), (size * added).max(axis=0)
    off = _rounding(surface)
    unit = max(float((high - low).sum()) / (N_CODES - 2 * len(size)), off, 1e-300)
    middle = ((high - low) / unit / 2.0).astype(np.int32)
    offset = (sign < 0) - middle
    codes = ((size * added - low) / unit).astype(np.int32) + offset
    prefix = [surface.tables[p] for p in split.prefix]
    return _Net(
        sizes=np.array(split.prefix_sizes, dtype=np.int64),
        starts=np.cumsum([0, *split.prefix_sizes])[:-1].astype(np.int64),
        counts=np.concatenate([np.empty(0, dtype=np.int64), *classes.of_prefix(split)]),
        table=np.concatenate([np.empty((0, len(size))), *prefix]),
        bias=surface.bias,
        out=surface.out,
        size=size,
        low=low,
        reach=high - low,
        offset=offset.astype(np.int32),
        scalars=np.array([surface.constant, unit, off, sign @ middle]),
        n_up=n_up,
        narrow=tiles(codes.T).astype(np.int16),
        wide=tiles(added.T),
        n_block=len(added),
    )


def _rounding(surface: ReluSurface) -> float:
    """More than two ways to add up a value in float64 can differ by (Higham, section 4.2)."""
    hidden = np.abs(surface.bias) + sum(np.abs(table).max(axis=0) for table in surface.tables)
    n_terms = len(surface.tables) + len(surface.out) + 8
    scale = abs(surface.constant) + float(np.abs(surface.out) @ hidden)
    return float(4 * n_terms * np.finfo(np.float64).eps * scale)


@compiled
def _search(
    net: _Net, found: Found, digits: Places, ways: Places, span: tuple[int, int], bar: float
) -> tuple[int, int, int]:
    step, last = span
    m, h, n_block = len(net.sizes), len(net.bias), net.n_block
    partial = np.empty((m + 1, h))
    partial[0] = net.bias
    hidden, cuts = np.empty((PER_BATCH, h)), np.zeros((PER_BATCH, h), dtype=np.int16)
    limits = np.empty(PER_BATCH)
    sums, lowest = np.empty((PER_BATCH, PER_TILE), np.int16), np.empty(PER_BATCH, np.int16)
    values = np.empty(PER_TILE)
    changed, n, n_passed = 0, 0, 0
    while step < last and n + PER_BATCH * n_block <= len(found.value):
        n_batch = min(PER_BATCH, last - step)
        for b in range(n_batch):
            n_passed += _enter(net, partial, digits, changed)
            hidden[b] = partial[m]
            limits[b] = _cut(net, hidden[b], bar, cuts[b])
            changed = advance(digits, ways, net.sizes)
        for t in range(len(net.narrow)):
            _lowest(net.narrow[t], cuts, net.n_up, sums, lowest)
            for b in range(n_batch):
                if lowest[b] <= limits[b]:
                    _value(net, hidden[b], net.wide[t], values)
                    at = (step + b, t * PER_TILE)
                    n = note(found, n, at, values[: n_block - at[1]], bar - net.scalars[2])
        step += n_batch
    return step, n, n_passed


@compiled
def _enter(net: _Net, partial: Matrix, digits: Places, changed: int) -> int:
    """Bring `partial (m + 1, h)`, the sums of u, up to date; the prefix's number of levels."""
    n_levels = 1
    for j in range(len(digits)):
        at = net.starts[j] + digits[j]
        n_levels *= net.counts[at]
        if j >= changed:
            before, after, added = partial[j], partial[j + 1], net.table[at]
            for i in range(len(added)):
                after[i] = before[i] + added[i]
    return n_levels


@compiled
def _cut(net: _Net, hidden: Vector, bar: float, cut: Codes) -> float:
    """The codes of -|out| u, into `cut (h,)`, and the sum that a row below the bar can't exceed."""
    constant, unit, off, middle = net.scalars
    per_unit = 1.0 / unit
    size, low, reach, offsets = net.size, net.low, net.reach, net.offset
    rest = 0.0
    for i in range(len(hidden)):
        above = -size[i] * hidden[i] - low[i]
        over = above - reach[i]
        over = over if over > 0.0 else 0.0
        rest += over - above if i < net.n_up else above - over
        within = above - over
        within = within if within > 0.0 else 0.0
        cut[i] = np.int32(within * per_unit) + offsets[i]
    limit: float = (bar - constant - rest + off) * per_unit - middle + 1.0
    return limit


@compiled
def _lowest(codes: Codes, cuts: Codes, n_up: int, sums: Codes, lowest: Codes) -> None:
    """The lowest sum over units in a tile, into `lowest (PER_BATCH,)`, for each of the prefixes.

    Args:
        codes: `(h, PER_TILE)`.
        cuts: `(PER_BATCH, h)`.
        n_up: Units that add.
        sums: Room for `(PER_BATCH, PER_TILE)`, that the core's own memory holds beside a group.
        lowest: What is to be found.
    """
    sums[:] = 0
    for g in range(0, cuts.shape[1], PER_GROUP):
        s0, s1, s2, s3 = codes[g], codes[g + 1], codes[g + 2], codes[g + 3]
        s4, s5, s6, s7 = codes[g + 4], codes[g + 5], codes[g + 6], codes[g + 7]
        for b in range(PER_BATCH):
            total, cut = sums[b], cuts[b]
            c0, c1, c2, c3 = cut[g], cut[g + 1], cut[g + 2], cut[g + 3]
            c4, c5, c6, c7 = cut[g + 4], cut[g + 5], cut[g + 6], cut[g + 7]
            if g < n_up:
                for i in range(PER_TILE):
                    m0 = (s0[i] if s0[i] > c0 else c0) + (s1[i] if s1[i] > c1 else c1)
                    m2 = (s2[i] if s2[i] > c2 else c2) + (s3[i] if s3[i] > c3 else c3)
                    m4 = (s4[i] if s4[i] > c4 else c4) + (s5[i] if s5[i] > c5 else c5)
                    m6 = (s6[i] if s6[i] > c6 else c6) + (s7[i] if s7[i] > c7 else c7)
                    total[i] = total[i] + ((m0 + m2) + (m4 + m6))
            else:
                for i in range(PER_TILE):
                    m0 = (s0[i] if s0[i] > c0 else c0) + (s1[i] if s1[i] > c1 else c1)
                    m2 = (s2[i] if s2[i] > c2 else c2) + (s3[i] if s3[i] > c3 else c3)
                    m4 = (s4[i] if s4[i] > c4 else c4) + (s5[i] if s5[i] > c5 else c5)
                    m6 = (s6[i] if s6[i] > c6 else c6) + (s7[i] if s7[i] > c7 else c7)
                    total[i] = total[i] - ((m0 + m2) + (m4 + m6))
    for b in range(PER_BATCH):
        total = sums[b]
        low = total[0]
        for i in range(PER_TILE):
            low = min(low, total[i])
        lowest[b] = low


@compiled
def _value(net: _Net, hidden: Vector, added: Matrix, values: Vector) -> None:
    """The values `(PER_TILE,)` of a tile's rows, in float64."""
    values[:] = net.scalars[0]
    for h in range(len(hidden)):
        out, at, row = net.out[h], hidden[h], added[h]
        for i in range(PER_TILE):
            above = at + row[i]
            values[i] += out * (above if above > 0.0 else 0.0)
