"""The k best of a sum, parameter by parameter: exact on any space, in no time.

Of the configurations of the first parameters only the k best can become one of the k best of all,
whatever the others are: so k partial sums are all that is carried along (a k-best Viterbi fold).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlflow_meta.search.surface import AdditiveSurface, Incumbent, Surface, n_rows


def fold(surface: Surface, k: int, rng: np.random.Generator) -> Iterator[Incumbent]:
    """See `Engine`; for an additive surface. It is done in one step."""
    del rng
    if not isinstance(surface, AdditiveSurface):
        raise TypeError("Only an additive surface can be folded.")
    values = np.array([surface.constant])
    rows = np.zeros((1, 0), dtype=np.int64)
    for table in surface.tables:
        levels = np.argsort(table, kind="stable")[:k]
        sums = (values[:, None] + table[levels]).ravel()
        kept = np.argsort(sums, kind="stable")[:k]
        before, level = np.divmod(kept, len(levels))
        values = sums[kept]
        rows = np.column_stack([rows[before], levels[level]])
    n = n_rows(surface.sizes)
    rest = np.inf if n == len(rows) else float(values[-1])
    yield Incumbent(rows=rows, values=values, rest=rest, n_assessed=n)
