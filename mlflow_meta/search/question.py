"""A question to a meta-model: which configurations of a space its formula takes lowest.

score:  what the formula gives; its order is that of the predicted values
row:    one level of every parameter, see `surface`
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.columns import frame_of
from mlflow_meta.models import Formed, MetaModel
from mlflow_meta.models.forms import Form, Trees
from mlflow_meta.search.best import Best
from mlflow_meta.search.choose import ENGINES, Spread, engine_for, run
from mlflow_meta.search.levels import Levels, levels_of
from mlflow_meta.search.surface import Box, Engine, Incumbent, n_rows
from mlflow_meta.search.translate import Cells, cells_of, slack, surface_of
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import Config, ConfigValue

Vector = NDArray[np.float64]
Places = NDArray[np.int64]
Constraint = Callable[[Config], bool]
Listed = tuple[list[dict[str, ConfigValue]], Vector]  # configurations, and their scores

N_REFUSED = 2000  # more rows that an engine keeps which does not ask whether they are wanted
MAX_ANSWERS = 1_000_000_000  # bytes of the table of what trees answer to every level


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """The configurations of lowest predicted value.

    Attributes:
        configs: Up to `k`, all different, the best first; fewer only where there are no more.
        values: `(k,)` predicted for them, rising, in the units of `MetaModel.predict`.
        scores: `(k,)` what was minimised, rising; values that the metric's bounds make equal differ
            here.
        bound: No configuration has a lower predicted value; -inf where nothing is known.
        rest: No configuration that is not among `configs` has a lower predicted value than this;
            inf where there is no other.
        is_exact: Whether it is proven that none is better than any of these. Of a continuous
            parameter the levels are compared; what lies between them is in `bound`.
        n_configs: How many configurations this is about; of a continuous parameter, levels. Those
            that constraints refuse are counted, too.
        n_assessed: How many of them are accounted for: valued, or ruled out together.
        engine: Which one searched.
        seconds: How long it took.
        is_interrupted: Whether it was stopped by Ctrl-C.
    """

    configs: list[dict[str, ConfigValue]]
    values: Vector
    scores: Vector
    bound: float
    rest: float
    is_exact: bool
    n_configs: int
    n_assessed: int
    engine: str
    seconds: float
    is_interrupted: bool = False

    @property
    def gap(self) -> float:
        """By how much the best may be beaten at most; inf where nothing is known."""
        return float(self.values[0]) - self.bound if len(self.values) else np.inf


Progress = Callable[[TopK], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is searched: a form over a space, less what is not wanted.

    Attributes:
        model: Whose units the values are in.
        space: Where to search.
        form: What is minimised; the model's own, or drawn from what it holds for possible.
        context: What is given.
        is_wanted: Whether a configuration may be returned.
        n_gone: How many it refuses at most, where `is_constrained` is false.
        is_constrained: Whether it may refuse any number of them.
        spread: Runs engines where there are more workers; None for here.
    """

    model: MetaModel
    space: SearchSpace
    form: Form
    context: Mapping[str, object]
    is_wanted: Constraint
    n_gone: int
    is_constrained: bool
    spread: Spread | None = None

    def answer(
        self,
        k: int,
        engine: str | Engine,
        budget_s: float,
        rng: np.random.Generator,
        progress: Progress | None = None,
    ) -> TopK:
        """The `k` best, as `top_k` gives them."""
        started = time.monotonic()
        levels = levels_of(self.space, self.model.encoder, self.form, self.context)
        surface = surface_of(self.form, levels)
        # Under a constraint the members of a cell are not alike.
        cells = [
            Cells(tuple(tuple(np.array([i]) for i in levels) for levels in box))
            if self.is_constrained
            else cells_of(surface, box)
            for box in levels.boxes
        ]
        regions = Regions(levels, cells)
        boxes = [cell.representatives() for cell in cells]
        n_cells = sum(n_rows([len(levels) for levels in box]) for box in boxes)
        if isinstance(engine, str):
            engine = engine_for(engine, surface, n_cells, is_constrained=self.is_constrained)
        name = engine if isinstance(engine, str) else getattr(engine, "__name__", "your own")

        n_gone = None if self.is_constrained else self.n_gone
        weight = Weight(regions=regions, is_wanted=self.is_wanted, n_gone=n_gone, k=k)
        runner = partial(self.spread, seconds=budget_s) if self.spread else run
        steps = runner(
            ENGINES[engine] if isinstance(engine, str) else engine,
            surface, k, np.random.default_rng(rng.integers(2**63)),
            boxes=boxes, weight=weight, n_gone=self.n_gone + N_REFUSED * self.is_constrained,
        )  # fmt: skip
        found, is_interrupted = Best(k, len(boxes[0])).incumbent(-np.inf, 0), False
        empty = self._answer(found, ([], np.empty(0)), k, name, levels, 0.0)
        try:
            for found in steps:
                seconds = time.monotonic() - started
                if progress:
                    progress(self._told(found, empty, levels, seconds))
                if seconds > budget_s:
                    break
        except KeyboardInterrupt:
            is_interrupted = True
        finally:
            steps.close()
        listed = self._configs(regions, found, k)
        answer = self._answer(found, listed, k, name, levels, time.monotonic() - started)
        return replace(answer, is_interrupted=is_interrupted)

    def _configs(self, regions: Regions, found: Incumbent, k: int) -> Listed:
        """Those of the rows in their order, of each cell from its middle outwards; their scores."""
        members = (
            (config, score)
            for row, score in zip(found.rows, found.values, strict=True)
            for config in filter(self.is_wanted, regions.configs(row))
        )
        kept = list(itertools.islice(members, k))
        return [config for config, _ in kept], np.array([score for _, score in kept])

    def _answer(
        self,
        found: Incumbent,
        listed: Listed,
        k: int,
        engine: str,
        levels: Levels,
        seconds: float,
    ) -> TopK:
        configs, scores = listed
        values = np.empty(0)
        if configs:
            values = self.model.at_scores(self._given(len(configs)), scores)
        bound, rest = self._bounds(found, levels)
        if k == len(configs) < levels.n_configs:
            rest = min(rest, float(values[-1]))  # the last of a cell's members may be left out
        return TopK(
            configs=configs,
            values=values,
            scores=scores,
            bound=min([bound, *values[:1].tolist()]),
            rest=rest,
            is_exact=found.gap == 0 and (len(configs) == k or found.rest == np.inf),
            n_configs=levels.n_configs,
            n_assessed=min(found.n_assessed, levels.n_configs)
            if found.gap > 0
            else levels.n_configs,
            engine=engine,
            seconds=seconds,
        )

    def _bounds(self, found: Incumbent, levels: Levels) -> tuple[float, float]:
        """Below all there is, and below all that is not found, in the model's units."""

        def in_units(score: float) -> float:
            if np.isinf(score):
                return score
            return float(self.model.at_scores(self._given(1), np.array([score]))[0])

        between = slack(self.form, levels)
        lowest = min(found.rest, float(found.values.min(initial=np.inf)))
        return in_units(lowest - between), in_units(found.rest - between)

    def _told(self, found: Incumbent, empty: TopK, levels: Levels, seconds: float) -> TopK:
        """What is known on the way: values and bounds alone, in the model's units."""
        bound, rest = self._bounds(found, levels)
        return replace(
            empty,
            values=self.model.at_scores(self._given(len(found.values)), found.values),
            scores=found.values,
            bound=bound,
            rest=rest,
            n_assessed=min(found.n_assessed, empty.n_configs),
            seconds=seconds,
        )

    def _given(self, n: int) -> pd.DataFrame:
        """The context of `n` configurations, which is all that turns scores into values."""
        return pd.DataFrame(dict(self.context), index=range(n))


class Regions:
    """The configurations that a row stands for: levels that the model can't tell apart."""

    def __init__(self, levels: Levels, cells: Sequence[Cells]) -> None:
        """One set of cells for each box of the levels."""
        self._levels = levels
        self._members: list[list[dict[int, list[int]]]] = []
        for of_box in cells:
            middle: Box = of_box.representatives()
            self._members.append(
                [
                    {
                        first: _outwards(levels)
                        for first, levels in zip(firsts.tolist(), members, strict=True)
                    }
                    for firsts, members in zip(middle, of_box.members, strict=True)
                ]
            )
        self._are_single = all(
            len(levels) == 1 for of_box in cells for members in of_box.members for levels in members
        )

    def n_configs(self, row: Places) -> int:
        """How many."""
        return 1 if self._are_single else n_rows([len(levels) for levels in self._levels_of(row)])

    def configs(self, row: Places) -> Iterator[dict[str, ConfigValue]]:
        """The middle one first, and then outwards."""
        for chosen in itertools.product(*self._levels_of(row)):
            yield self._levels.config(chosen)

    def _levels_of(self, row: Places) -> list[list[int]]:
        levels = row.tolist()
        for box in self._members:
            found = [kept.get(level) for kept, level in zip(box, levels, strict=True)]
            if all(found):
                return [members for members in found if members]
        raise LookupError(f"The row {levels} lies in no box.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """How many wanted configurations a row stands for, counted as far as is needed; see `Best`.

    Attributes:
        regions: What rows stand for.
        is_wanted: Whether a configuration is.
        n_gone: How many are not, at most; None for any number.
        k: How many are as good as more.
    """

    regions: Regions
    is_wanted: Constraint
    n_gone: int | None
    k: int

    def __call__(self, row: Places) -> int:
        """Of one row `(P,)`."""
        n = self.regions.n_configs(row)
        if self.n_gone is not None and (n - self.n_gone >= self.k or not self.n_gone):
            return min(n, self.k)
        wanted = filter(self.is_wanted, self.regions.configs(row))
        return sum(1 for _ in itertools.islice(wanted, self.k))


def _outwards(levels: Places) -> list[int]:
    middle = len(levels) // 2
    return [int(levels[i]) for i in sorted(range(len(levels)), key=lambda i: abs(i - middle))]


def form_of(model: MetaModel) -> Form | None:
    """The formula of a fitted model, if it has one that can be searched: no forest of a million."""
    if not isinstance(model.regressor, Formed):
        return None
    form = model.regressor.form()
    return None if isinstance(form, Trees) and form.n_answers > MAX_ANSWERS else form


def framed(
    configs: Sequence[Config], space: SearchSpace, context: Mapping[str, object]
) -> pd.DataFrame:
    """`configs` as rows that a meta-model reads, each in the same context."""
    frame = frame_of(configs, space.names)
    return pd.concat([frame, pd.DataFrame(dict(context), index=frame.index)], axis=1)
