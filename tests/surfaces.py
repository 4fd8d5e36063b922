"""Random surfaces of every class, for the tests of the engines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlflow_meta.search.surface import AdditiveSurface, ReluSurface, Surface, TreeSurface


def random_surface(
    kind: str, sizes: Sequence[int], rng: np.random.Generator, *, is_coarse: bool = False
) -> Surface:
    """A surface over levels; a coarse one has few different values, and so many ties."""

    def numbers(*shape: int) -> np.ndarray:
        drawn = 2 * rng.normal(size=shape)
        return np.round(drawn) if is_coarse else drawn

    if kind == "additive":
        return AdditiveSurface(constant=0.5, tables=tuple(numbers(n) for n in sizes))
    if kind == "relu":
        h = int(rng.integers(1, 16))
        return ReluSurface(
            constant=0.5,
            tables=tuple(numbers(n, h) for n in sizes),
            bias=numbers(h),
            out=numbers(h),
        )
    depths = rng.integers(0, 6, size=int(rng.integers(1, 20)))
    roots = np.cumsum([0, *(2 ** (depths[:-1] + 1) - 1)])
    own = np.concatenate([np.arange(2 ** (depth + 1) - 1) for depth in depths])
    root_of = np.repeat(roots, 2 ** (depths + 1) - 1)
    asks = own < np.repeat(2**depths - 1, 2 ** (depths + 1) - 1)
    param = np.where(asks, rng.integers(len(sizes), size=len(own)), -1)
    goes_left = np.zeros((len(own), max(sizes)), dtype=bool)
    for node in np.flatnonzero(asks):
        n = sizes[param[node]]
        # Half of the questions are a threshold's, half a category's.
        cut = np.arange(n) <= rng.integers(n)
        goes_left[node, :n] = cut if rng.random() < 0.5 else rng.random(n) < 0.5
    return TreeSurface(
        sizes=tuple(sizes),
        constant=0.5,
        roots=roots,
        param=param,
        goes_left=goes_left,
        left=np.where(asks, root_of + 2 * own + 1, root_of + own),
        right=np.where(asks, root_of + 2 * own + 2, root_of + own),
        value=np.where(asks, 0.0, numbers(len(own))),
    )
