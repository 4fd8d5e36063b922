"""Every row, one after the other: for spaces that are small enough for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mlflow_meta.search.best import MAX_AT_ONCE, Best, Weight, one, rows_at
from mlflow_meta.search.surface import Box, Incumbent, Surface, n_rows


def enumerated(
    surface: Surface,
    k: int,
    rng: np.random.Generator,
    *,
    boxes: Sequence[Box] | None = None,
    weight: Weight = one,
    cut: float = np.inf,
) -> Iterator[Incumbent]:
    """See `Engine`; `boxes`, `weight` and `cut` are those of `branch_and_bound`."""
    del rng
    boxes = boxes or [tuple(np.arange(size) for size in surface.sizes)]
    best, n_done = Best(k, len(surface.sizes), weight, cut), 0
    for box in boxes:
        n = n_rows([len(levels) for levels in box])
        for start in range(0, n, MAX_AT_ONCE):
            rows = rows_at(box, np.arange(start, min(start + MAX_AT_ONCE, n)))
            best.offer(rows, surface.values(rows))
            n_done += len(rows)
            yield best.incumbent(-np.inf, n_done)
    rest = np.inf if np.isinf(best.cut) or len(best.values) == n_done else best.cut
    yield best.incumbent(rest, n_done)
