"""How a scan goes through all rows: a block of suffix rows at each step of a walk over prefixes.

P, n_p:   parameters, levels of parameter p
m:        parameters of the prefix; the other `P - m` make up the suffix
c_p:      classes of levels that a surface does not tell apart
prefix:   `(m,)` one class of each prefix parameter
step:     a prefix's number in the walk; from one to the next, one class changes, and by one: the
          reflected mixed-radix Gray code (Knuth, The Art of Computer Programming, 7.2.1.1)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.compiled import compiled
from mlflow_meta.search.surface import Places, Vector

Number = TypeVar("Number", bound=np.generic)

PER_TILE = 512  # rows that are valued at once; a suffix is padded to a multiple of it
PER_STEP = 200  # rows that could be valued in the time that a step takes beside its block


@dataclass(frozen=True, slots=True)
class Classes:
    """The levels of a space, in classes.

    Attributes:
        levels: `(n_p,)` of each parameter, class by class.
        starts: `(c_p + 1,)` of each parameter: where its classes begin in `levels`, and the end.
    """

    levels: tuple[Places, ...]
    starts: tuple[Places, ...]

    @classmethod
    def of(cls, class_of: Sequence[Places]) -> Classes:
        """Of the classes `(n_p,)` that the levels of each parameter are in."""
        counts = [np.bincount(classes) for classes in class_of]
        return cls(
            levels=tuple(np.argsort(classes, kind="stable") for classes in class_of),
            starts=tuple(np.concatenate([[0], np.cumsum(count)]) for count in counts),
        )

    @property
    def representatives(self) -> tuple[Places, ...]:
        """`(c_p,)` one level of each class, of each parameter."""
        return tuple(
            levels[starts[:-1]] for levels, starts in zip(self.levels, self.starts, strict=True)
        )

    @property
    def counts(self) -> tuple[Places, ...]:
        """`(c_p,)` levels in each class, of each parameter."""
        return tuple(np.diff(starts) for starts in self.starts)

    def of_prefix(self, split: Split) -> list[Places]:
        """`(c_p,)` levels in each class, of each prefix parameter."""
        return [self.counts[p] for p in split.prefix]

    def members(self, rows: Places, k: int) -> tuple[Places, Places]:
        """The first `k` rows of levels, or all, that `rows (n, P)` of classes stand for.

        Returns:
            `(j,)` which of `rows` each is of, rising; and `(j, P)` themselves.
        """
        n_members = np.ones(len(rows), dtype=np.int64)
        for p, counts in enumerate(self.counts):
            n_members *= counts[rows[:, p]]
        n_members = np.minimum(n_members, k)
        of = np.repeat(np.arange(len(rows)), n_members)[:k]
        rank = np.arange(len(of)) - (np.cumsum(n_members) - n_members)[of]
        found = np.empty((len(of), rows.shape[1]), dtype=np.int64)
        for p, (levels, starts) in enumerate(zip(self.levels, self.starts, strict=True)):
            at = rows[of, p]
            rank, place = np.divmod(rank, np.diff(starts)[at])
            found[:, p] = levels[starts[at] + place]
        return of, found


@dataclass(frozen=True, slots=True)
class Split:
    """Which parameters a scan steps through, and which make up the block at each step.

    Attributes:
        sizes: `c_p`, of each parameter.
        prefix: `(m,)` parameters, the one that changes least often first.
        suffix: `(P - m,)` the other parameters.
    """

    sizes: tuple[int, ...]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    @classmethod
    def by(cls, sizes: Sequence[int], weight: Sequence[float], limit: int) -> Split:
        """The split for a surface, by what it costs to change a parameter.

        Args:
            sizes: `c_p`, of each parameter.
            weight: What a change of each parameter costs, as a share of what a block costs.
            limit: Rows that a block may have.
        """
        best: dict[int, tuple[float, tuple[int, ...]]] = {1: (0.0, ())}
        for p, size in enumerate(sizes):
            for n, (saved, taken) in list(best.items()):
                more = (saved + weight[p], (*taken, p))
                if n * size <= limit and more > best.get(n * size, (-1.0, ())):
                    best[n * size] = more
        dense = max(_density(n) for n in best) / 2.0
        chosen = max((best[n][0], _density(n), n) for n in best if _density(n) >= dense)[2]
        suffix = best[chosen][1]
        prefix = sorted(set(range(len(sizes))) - set(suffix), key=lambda p: -weight[p])
        return cls(sizes=tuple(sizes), prefix=tuple(prefix), suffix=suffix)

    @property
    def prefix_sizes(self) -> tuple[int, ...]:
        """`c_p` of the prefix's parameters."""
        return tuple(self.sizes[p] for p in self.prefix)

    def start(self, step: int) -> tuple[Places, Places]:
        """The prefix `(m,)` at `step`, and its ways; see `walked`."""
        digits, ways = walked(np.array([step]), self.prefix_sizes)
        return digits[0], ways[0]

    @property
    def n_steps(self) -> int:
        """How many prefixes there are."""
        return math.prod(self.prefix_sizes)

    @property
    def block(self) -> Places:
        """`(n, P - m)` all suffixes."""
        sizes = [self.sizes[p] for p in self.suffix]
        return np.indices(sizes, dtype=np.int64).reshape(len(sizes), math.prod(sizes)).T

    def rows(self, step: Places, place: Places) -> Places:
        """Rows `(n, P)` at `step (n,)` of the walk and `place (n,)` in the block."""
        found = np.empty((len(step), len(self.sizes)), dtype=np.int64)
        found[:, list(self.prefix)] = walked(step, self.prefix_sizes)[0]
        found[:, list(self.suffix)] = self.block[place]
        return found


def walked(step: Places, sizes: Sequence[int]) -> tuple[Places, Places]:
    """Prefixes `(n, m)` at `step (n,)`, and the way, 1 or -1, in which each class goes next."""
    digits = np.empty((len(step), len(sizes)), dtype=np.int64)
    ways = np.empty_like(digits)
    above = step
    for j in range(len(sizes) - 1, -1, -1):
        above, digit = np.divmod(above, sizes[j])
        ways[:, j] = np.where(above % 2 == 0, 1, -1)
        digits[:, j] = np.where(above % 2 == 0, digit, sizes[j] - 1 - digit)
    return digits, ways


@compiled
def advance(digits: Places, ways: Places, sizes: Places) -> int:
    """Take the next step, in place; the place of the class that changed, -1 after the last."""
    for j in range(len(sizes) - 1, -1, -1):
        following = digits[j] + ways[j]
        if 0 <= following < sizes[j]:
            digits[j] = following
            return j
        ways[j] = -ways[j]
    return -1


class Found(NamedTuple):
    """Room for rows that may be among the lowest.

    Attributes:
        step: `(n,)`.
        place: `(n,)` in the block.
        value: `(n,)` up to rounding.
    """

    step: Places
    place: Places
    value: Vector

    @classmethod
    def room(cls, n: int) -> Found:
        """Room for `n` rows."""
        return cls(np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64), np.empty(n))

    def after(self, n: int) -> Found:
        """The room that `n` rows leave."""
        return Found(self.step[n:], self.place[n:], self.value[n:])


class Blocks(Protocol):
    """The blocks of a surface of classes."""

    @property
    def split(self) -> Split:
        """What the blocks are of."""
        ...

    def search(self, found: Found, first: int, last: int, bar: float) -> tuple[int, int, int]:
        """Put down in `found` all rows of the steps from `first` on whose values are below `bar`.

        By more than rounding, that is. Stops before `last` where there may be no room.

        Returns:
            The step that it stopped before; the rows found; the prefixes of levels, not of classes,
            that it went through.
        """
        ...


@compiled
def note(found: Found, n: int, at: tuple[int, int], values: Vector, bar: float) -> int:
    """Add to the `n` rows `found` those of a tile that are below the bar; how many there are then.

    Args:
        found: With room for all of the tile.
        n: Rows in it by now.
        at: The step, and the place of the tile's first row.
        values: Of the tile's rows.
        bar: What is too high.
    """
    for i in range(len(values)):
        if values[i] < bar:
            found.step[n] = at[0]
            found.place[n] = at[1] + i
            found.value[n] = values[i]
            n += 1
    return n


def padded(n: int) -> int:
    """Rows of the tiles that hold a block of `n`."""
    return -(-n // PER_TILE) * PER_TILE


def tiles(table: NDArray[Number]) -> NDArray[Number]:
    """`table (r, n)` as `(tiles, r, PER_TILE)`; the last column fills the last tile."""
    r, n = table.shape
    wide = np.pad(table, ((0, 0), (0, padded(n) - n)), mode="edge")
    return np.ascontiguousarray(wide.reshape(r, -1, PER_TILE).transpose(1, 0, 2))


def _density(n: int) -> float:
    """Share of the time of a step and its block of `n` rows that is spent on rows."""
    return n / (padded(n) + PER_STEP)
