"""A search space as levels: finitely many values of every parameter, and which go together.

level:  one value of a parameter, or that it does not exist
cell:   levels of one parameter that the model can't tell apart
box:    levels of each parameter of which every combination is a configuration

A finite parameter has all its values for levels. A continuous one has as many as the model can tell
apart: the best of an additive model, one in every cell of a tree model, and for a network so many
that the value between two of them is known to `SPACING`.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.features import Encoder
from mlflow_meta.models.forms import Additive, Form, Relu, Trees
from mlflow_meta.search.surface import Box, n_rows
from mlflow_meta.space import Categorical, SearchSpace
from mlflow_meta.space.params import Param, same
from mlflow_meta.trials import ConfigValue

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Places = NDArray[np.int64]

MAX_LEVELS = 100_000  # of one parameter; of more values, some stand for all
N_FINE = 257  # levels of a continuous parameter that are always there
MAX_FINE = 1025  # levels of a continuous parameter of a network
SPACING = 0.01  # how far apart the predictions of two neighbouring levels may be, as a score


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """The levels of a space, as a model sees them.

    Attributes:
        names: The parameters, parents before their children.
        values: Of each parameter its levels; None for "does not exist".
        columns: Of each parameter the columns of X that it decides.
        X: Of each parameter `(n_p, its columns)`.
        given: `(d,)` X without any parameter: the context.
        boxes: They do not overlap, and together hold every configuration.
        spacing: Of each parameter the largest distance of neighbouring levels, in X; 0 where it has
            no values between its levels that a model could tell from them.
    """

    names: tuple[str, ...]
    values: tuple[tuple[ConfigValue | None, ...], ...]
    columns: tuple[Places, ...]
    X: tuple[Matrix, ...]
    given: Vector
    boxes: tuple[Box, ...]
    spacing: tuple[float, ...]

    @property
    def n_configs(self) -> int:
        """How many configurations the levels make."""
        return sum(n_rows([len(levels) for levels in box]) for box in self.boxes)

    def config(self, row: Sequence[int] | Places) -> dict[str, ConfigValue]:
        """The configuration of a row of levels `(P,)`."""
        chosen = zip(self.names, self.values, row, strict=True)
        return {name: value for name, v, i in chosen if (value := v[int(i)]) is not None}


def levels_of(
    space: SearchSpace, encoder: Encoder, form: Form, context: Mapping[str, object]
) -> Levels:
    """The levels of a space under a model.

    Args:
        space: What may be chosen; parameters that the encoder does not know change nothing.
        encoder: Makes X.
        form: What the model makes of X.
        context: Columns of a frame that are given, such as `task` and `dataset.rows`.
    """
    base = encoder.encode(pd.DataFrame(dict(context), index=range(1)))[0]
    places: dict[str, list[int]] = defaultdict(list)
    for j, column in enumerate(encoder.columns):
        places[column.source].append(j)
    values, columns, parts, spacing = [], [], [], []
    for name, param in space.params.items():
        own = np.array(places[f"params.{name}"], dtype=np.int64)
        found, gap = _values(name, param, encoder, own, form)
        levels = [*found, None] if param.when else found
        values.append(tuple(levels))
        columns.append(own)
        parts.append(encoder.encode_values(own.tolist(), levels))
        spacing.append(gap)
    return Levels(
        names=tuple(space.names),
        values=tuple(values),
        columns=tuple(columns),
        X=tuple(parts),
        given=base,
        boxes=tuple(_boxes(space, values)),
        spacing=tuple(spacing),
    )


def _values(
    name: str, param: Param, encoder: Encoder, own: Places, form: Form
) -> tuple[list[ConfigValue], float]:
    """The levels of a parameter that exists, and how far they are apart in X."""
    if param.n_values <= MAX_LEVELS or isinstance(param, Categorical):
        return param.grid(), 0.0
    unit = next((int(j) for j in own if encoder.columns[j].kind == "unit"), None)
    known = encoder.space.params.get(name)
    if unit is None or known is None or isinstance(known, Categorical):
        return _different(param.from_unit(np.linspace(0.0, 1.0, 2))), 0.0
    ends = known.to_unit(_ends(param))
    # What tells values apart is in the units of the encoder's space; the one searched may differ.
    telling = (_telling(form, unit) - ends[0]) / np.ptp(ends) if param.log == known.log else []
    inside = np.array([place for place in telling if 0 < place < 1])
    n = _n_fine(form, unit, ends) if isinstance(form, Relu) else N_FINE
    found = _different(
        param.from_unit(np.unique(np.concatenate([np.linspace(0.0, 1.0, n), inside])))
    )
    X = known.to_unit(np.array(found, dtype=float))
    if isinstance(form, Trees):
        # A value with all its digits only where no short one falls into the same cell.
        cuts = np.unique(form.threshold[form.feature == unit])
        exact = param.exactly(inside)
        cells = np.searchsorted(cuts, known.to_unit(np.array(exact, dtype=float)))
        seen = set(np.searchsorted(cuts, X).tolist())
        lacking = [value for value, cell in zip(exact, cells, strict=True) if int(cell) not in seen]
        return _different([*found, *lacking]), 0.0
    return found, float(np.diff(np.sort(X)).max())


def _ends(param: Param) -> Vector:
    """The lowest and the highest value of a number, `(2,)`."""
    assert not isinstance(param, Categorical)
    return np.array([param.low, param.high], dtype=float)


def _telling(form: Form, column: int) -> Vector:
    """Places on the scale of a column of X where a model's best value may lie."""
    if isinstance(form, Trees):
        cuts = np.unique(form.threshold[form.feature == column])
        edges = np.concatenate([[min(0.0, *cuts, 0.0)], cuts, [max(1.0, *cuts, 1.0)]])
        return np.unique(np.concatenate([(edges[1:] + edges[:-1]) / 2, cuts]))
    if isinstance(form, Additive) and form.square[column] > 0:
        return np.array([-form.linear[column] / (2 * form.square[column])])
    return np.empty(0)


def steepness(form: Relu, columns: Places) -> float:
    """By how much the value may change at most where one column of X changes by 1."""
    return float((np.abs(form.weights[columns]) @ np.abs(form.out)).max(initial=0.0))


def _n_fine(form: Relu, column: int, ends: Vector) -> int:
    width = float(np.ptp(ends))
    wanted = int(np.ceil(steepness(form, np.array([column])) * width / SPACING)) + 1
    return min(max(wanted, 17), MAX_FINE)


def _different(values: Sequence[ConfigValue]) -> list[ConfigValue]:
    """Each value once, in ascending order."""
    return sorted(dict.fromkeys(values))


def _boxes(space: SearchSpace, values: Sequence[Sequence[ConfigValue | None]]) -> Iterator[Box]:
    """One box for every way in which conditions may be met and not met."""
    asked = {
        name: [param.when[name] for param in space.params.values() if name in param.when]
        for name in space.names
    }
    kinds = [_kinds(levels, asked[name]) for name, levels in zip(space.names, values, strict=True)]
    names = space.names

    def grown(box: Box, met: dict[str, ConfigValue | None]) -> Iterator[Box]:
        place = len(box)
        if place == len(names):
            yield box
            return
        name = names[place]
        when = space.params[name].when
        exists = all(
            any(same(met[parent], value) for value in allowed) for parent, allowed in when.items()
        )
        for kind in kinds[place]:
            value = values[place][int(kind[0])]
            if (value is not None) == exists:
                # Any level of a kind stands for all: the conditions take them for one.
                yield from grown((*box, kind), {**met, name: value})

    return grown((), {})


def _kinds(
    levels: Sequence[ConfigValue | None], asked: Sequence[Sequence[ConfigValue]]
) -> list[Places]:
    """Levels that are alike to every condition on their parameter; "does not exist" by itself."""
    if not asked:
        exists = np.array([value is not None for value in levels])
        split = [np.flatnonzero(exists), np.flatnonzero(~exists)]
        return [places for places in split if len(places)]
    keys = [
        (value is None, *(any(same(value, other) for other in allowed) for allowed in asked))
        for value in levels
    ]
    order = sorted(range(len(levels)), key=lambda i: keys[i])
    return [
        np.array(sorted(group), dtype=np.int64)
        for _, group in itertools.groupby(order, key=lambda i: keys[i])
    ]
