"""Surfaces as fitted models have them, and random ones; and brute force over the small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from mlflow_meta.search.surface import (
    AdditiveSurface,
    Incumbent,
    ReluSurface,
    Surface,
    TreeSurface,
)

Places = NDArray[np.int64]
Vector = NDArray[np.float64]

PARAMS = {"num_leaves": 8, "max_depth": 5, "min_data_in_leaf": 4, "min_data_in_bin": 1}


def random_rows(sizes: tuple[int, ...], n: int, rng: np.random.Generator) -> Places:
    return np.stack([rng.integers(size, size=n) for size in sizes], axis=1)


def all_rows(sizes: tuple[int, ...]) -> Places:
    return np.indices(sizes).reshape(len(sizes), -1).T.astype(np.int64)


def brute_force(surface: Surface, k: int, rng: np.random.Generator) -> Iterator[Incumbent]:
    """An engine that looks at every row."""
    del rng
    rows = all_rows(surface.sizes)
    values = surface.values(rows)
    order = np.lexsort([*rows.T[::-1], values])
    rest = float(values[order[k]]) if k < len(rows) else np.inf
    yield Incumbent(rows=rows[order[:k]], values=values[order[:k]], rest=rest, n_assessed=len(rows))


def hilly(units: NDArray[np.float64], rng: np.random.Generator) -> Vector:
    """A smooth function with interactions, at `units (n, P)`."""
    n_params = units.shape[1]
    found = units @ rng.normal(size=n_params) + (units - rng.uniform(size=n_params)) ** 2 @ (
        1.0 + 2.0 * rng.normal(size=n_params)
    )
    for _ in range(n_params):
        i, j = rng.choice(n_params, 2, replace=False)
        found += 2.0 * rng.normal() * np.sin(3.0 * units[:, i]) * np.cos(4.0 * units[:, j] + i)
    return np.asarray(found)


def tree_surface(sizes: tuple[int, ...], seed: int, *, n_trees: int = 100) -> TreeSurface:
    """LightGBM's trees, as fitted to 300 rows of a hilly function."""
    rng = np.random.default_rng(seed)
    last = np.maximum(np.array(sizes) - 1, 1)
    units = random_rows(sizes, 300, rng) / last
    fixed = {"num_threads": 1, "deterministic": True, "verbosity": -1, "seed": 1}
    booster = lgb.train(PARAMS | fixed, lgb.Dataset(units, hilly(units, rng)), n_trees)
    table = booster.trees_to_dataframe()
    place = {name: i for i, name in enumerate(table["node_index"])}
    is_leaf = table["split_feature"].isna().to_numpy()
    here = np.arange(len(table))
    param = np.array([-1 if name != name else int(name[7:]) for name in table["split_feature"]])
    child = [
        np.array([place.get(name, i) for i, name in zip(here, table[side], strict=True)])
        for side in ("left_child", "right_child")
    ]
    unit_of = np.arange(max(sizes)) / last[param][:, None]
    return TreeSurface(
        sizes=sizes,
        constant=0.5,
        roots=np.flatnonzero((table["node_depth"] == 1).to_numpy()),
        param=param,
        goes_left=(unit_of <= table["threshold"].to_numpy(dtype=float)[:, None])
        & (np.arange(max(sizes)) < np.array(sizes)[param][:, None]),
        left=child[0],
        right=child[1],
        value=np.where(is_leaf, table["value"].to_numpy(dtype=float), 0.0),
    )


def relu_surface(sizes: tuple[int, ...], seed: int, *, n_units: int = 32) -> ReluSurface:
    """A random network over the levels, evenly spaced from -1.7 to 1.7."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(len(sizes), n_units)) / np.sqrt(len(sizes))
    levels = [np.linspace(-1.7, 1.7, size) if size > 1 else np.zeros(1) for size in sizes]
    return ReluSurface(
        constant=0.5,
        tables=tuple(x[:, None] * w for x, w in zip(levels, weights, strict=True)),
        bias=rng.normal(size=n_units),
        out=rng.normal(size=n_units),
    )


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
