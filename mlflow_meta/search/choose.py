"""Which engine fits which surface, and how each is run over the boxes of a space."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.best import Best, Weight
from mlflow_meta.search.branch import branch_and_bound, n_rows_in
from mlflow_meta.search.enumerated import enumerated
from mlflow_meta.search.fold import fold
from mlflow_meta.search.policy import cross_entropy, reinforce
from mlflow_meta.search.surface import AdditiveSurface, Box, Engine, Incumbent, ReluSurface, Surface

Places = NDArray[np.int64]

MAX_ENUMERATED = 200_000  # rows up to which each is valued on its own
MAX_SCANNED = 5_000_000_000  # rows of a network up to which all are scanned


def scan(surface: Surface, k: int, rng: np.random.Generator) -> Iterator[Incumbent]:
    """See `scan.scan`, which is imported when it is asked for: compiling takes a while."""
    from mlflow_meta.search import scan as compiled

    return compiled.scan(surface, k, rng)


ENGINES: Mapping[str, Engine] = {
    "branch": branch_and_bound,
    "cross_entropy": cross_entropy,
    "enumerated": enumerated,
    "fold": fold,
    "reinforce": reinforce,
    "scan": scan,
}
"""Name -> engine; see their modules for what each can search."""

WHOLE: tuple[Engine, ...] = (branch_and_bound, enumerated)
"""Engines that know of boxes, and of what rows weigh."""


class Spread(Protocol):
    """Runs an engine as `run` does, where there are more workers than one machine has."""

    def __call__(  # noqa: PLR0913 - as `run`
        self,
        engine: Engine,
        surface: Surface,
        k: int,
        rng: np.random.Generator,
        *,
        boxes: Sequence[Box],
        weight: Weight,
        n_gone: int,
        seconds: float,
    ) -> Generator[Incumbent, None, None]:
        """The steps; the caller will have no more of them after some seconds."""
        ...


KINDS = ("auto", "exact", "policy")
"""Names of what to search by, of which `engine_for` makes that of an engine."""


def engine_for(kind: str, surface: Surface, n: int, *, is_constrained: bool) -> str:
    """The name of the engine that fits a surface of `n` rows.

    Args:
        kind: "exact" for one that searches until its result is proven and can stop at any time;
            "policy" for one that learns where good rows are, and proves nothing; "auto" for the
            first, or a scan where that is faster; or a name of `ENGINES`.
        surface: What is searched.
        n: How many rows it has.
        is_constrained: Whether any number of rows may be refused.
    """
    if kind == "policy":
        return "cross_entropy"
    if kind not in KINDS:
        return kind
    if n <= MAX_ENUMERATED:
        return "enumerated"
    if isinstance(surface, AdditiveSurface) and not is_constrained:
        return "fold"
    is_scanned = isinstance(surface, ReluSurface) and n <= MAX_SCANNED and not is_constrained
    return "scan" if is_scanned and kind == "auto" else "branch"


def run(  # noqa: PLR0913 - as an engine, and what it leaves to its caller
    engine: Engine,
    surface: Surface,
    k: int,
    rng: np.random.Generator,
    *,
    boxes: Sequence[Box],
    weight: Weight,
    n_gone: int,
) -> Generator[Incumbent, None, None]:
    """The steps of an engine over all boxes together.

    Args:
        engine: Of `WHOLE`, or one that searches one surface whole: then one box after the other.
        surface: Over all levels.
        k: How many rows.
        rng: For the engine.
        boxes: Where to search.
        weight: How many configurations a row stands for; 0 where it is not wanted.
        n_gone: How many rows weigh nothing at most; what an engine that does not ask finds more.
    """
    if engine in WHOLE:
        yield from engine(surface, k, rng, boxes=boxes, weight=weight)  # type: ignore[call-arg]
        return
    best, rest, n_done = Best(k, len(surface.sizes), weight), np.inf, 0
    for place, box in enumerate(boxes):
        found = best.incumbent(-np.inf, n_done)
        for found in engine(surface.restricted(box), k + n_gone, rng):
            rows = np.stack(
                [levels[i] for levels, i in zip(box, found.rows.T, strict=True)], axis=1
            )
            best.offer(rows, found.values)
            is_last = place == len(boxes) - 1
            known = min(rest, found.rest) if is_last else -np.inf
            yield best.incumbent(min(known, best.cut), n_done + found.n_assessed)
        rest, n_done = min(rest, found.rest), n_done + found.n_assessed
    rest = min(rest, best.cut)
    yield best.incumbent(np.inf if len(best.rows) == n_rows_in(boxes) else rest, n_done)
