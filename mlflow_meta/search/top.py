"""The k configurations that a meta-model predicts best, and by how much others may be better.

score:  what the model's regressor says; its order is that of the predicted values
row:    one level of every parameter, see `surface`
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.columns import frame_of
from mlflow_meta.models import Formed, MetaModel
from mlflow_meta.models.forms import Form
from mlflow_meta.search.best import Best
from mlflow_meta.search.choose import ENGINES, engine_for, run
from mlflow_meta.search.levels import Levels, levels_of
from mlflow_meta.search.local import local_search
from mlflow_meta.search.surface import Box, Engine, Incumbent, n_rows
from mlflow_meta.search.translate import Cells, cells_of, slack, surface_of
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import Config, ConfigValue

Vector = NDArray[np.float64]
Places = NDArray[np.int64]
Constraint = Callable[[Config], bool]
Progress = Callable[["TopK"], None]

MAX_LISTED = 200_000  # configurations, conditions not counted, up to which a space is listed
MAX_ASKED = 50_000  # configurations up to which a model without a formula is asked about all
MAX_AT_ONCE = 5_000  # configurations that it is asked about together
PATIENCE_S = 10.0  # that a search takes where no budget is given


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """The configurations of lowest predicted value.

    Attributes:
        configs: Up to `k`, all different, the best first; fewer only where there are no more.
        values: `(k,)` predicted for them, rising, in the units of `MetaModel.predict`.
        bound: No configuration has a lower predicted value; -inf where nothing is known.
        is_exact: Whether it is proven that none is better than any of these. Of a continuous
            parameter the levels are compared; what lies between them is in `bound`.
        n_configs: How many configurations this is about; of a continuous parameter, levels.
        n_assessed: How many of them are accounted for: valued, or ruled out together.
        engine: Which one searched.
        seconds: How long it took.
        is_interrupted: Whether it was stopped by Ctrl-C.
    """

    configs: list[dict[str, ConfigValue]]
    values: Vector
    bound: float
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


def top_k(  # noqa: PLR0913 - what is searched, how long, and what is left out are all independent
    model: MetaModel,
    space: SearchSpace,
    k: int,
    *,
    context: Mapping[str, object] | None = None,
    budget_s: float | None = None,
    engine: str | Engine = "auto",
    rng: np.random.Generator | None = None,
    tried: Sequence[Config] = (),
    constraint: Constraint | None = None,
    progress: Progress | None = None,
) -> TopK:
    """Search a space for the `k` configurations that a meta-model predicts best.

    What the model is made of is searched, where it is a sum, trees or a network: spaces of 10^15
    configurations and more, with a bound. A Gaussian process or a blend has no such formula: it is
    asked about some thousands, broad to narrow, and all that is proven is what a small space shows.

    Args:
        model: Fitted.
        space: Where to search; need not be the one that the model was fitted with.
        k: How many, at least 1.
        context: What is given: columns of a frame, such as `task` and `dataset.rows`.
        budget_s: Seconds after which the search ends with the best so far; `PATIENCE_S` if None.
            A step of the search may take it some tenths of a second further.
        engine: A name of `ENGINES`, an engine of your own, or "auto" for the one that fits.
        rng: Equal generators give equal results, as long as the budget lasts; None for a fresh one.
        tried: Configurations to leave out.
        constraint: Configurations for which it is false are left out.
        progress: Called about ten times a second with what is known by then.

    Returns:
        The best, and a bound on all others. Ctrl-C ends the search early, with the best so far.

    Raises:
        ValueError: If `k < 1`, there is no such engine, or it can't search this model.

    Example:
        >>> found = top_k(model, space, 10, context={"task": "mnist"}, rng=rng)
        >>> found.configs[0], found.values[0], found.is_exact
    """
    if k < 1:
        raise ValueError(f"`k >= 1` must hold, but got {k}.")
    if isinstance(engine, str) and engine not in ENGINES and engine not in ("auto", "local"):
        names = sorted([*ENGINES, "auto", "local"])
        raise ValueError(f"`engine` must be one of {names}, or a function, but got {engine!r}.")
    gone = {space.key(space.active(config)) for config in tried}

    def is_wanted(config: Config) -> bool:
        return space.key(config) not in gone and (constraint is None or constraint(config))

    rng = rng or np.random.default_rng()
    regressor = model.regressor
    if engine == "local" or (engine == "auto" and not isinstance(regressor, Formed)):
        return _asked(model, space, k, context or {}, is_wanted, rng)
    if not isinstance(regressor, Formed):
        raise ValueError(
            f"A {type(regressor).__name__} has no formula to search. Pass engine='local' or 'auto'."
        )
    question = Question(
        model=model, space=space, form=regressor.form(), context=context or {},
        is_wanted=is_wanted, n_gone=len(gone), is_constrained=constraint is not None,
    )  # fmt: skip
    return question.answer(k, engine, budget_s or PATIENCE_S, rng, progress)


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
    """

    model: MetaModel
    space: SearchSpace
    form: Form
    context: Mapping[str, object]
    is_wanted: Constraint
    n_gone: int
    is_constrained: bool

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
        if engine == "auto":
            engine = engine_for(surface, n_cells, is_constrained=self.is_constrained)
        name = engine if isinstance(engine, str) else getattr(engine, "__name__", "your own")

        def accepts(row: Places) -> bool:
            return any(True for _ in self._wanted(regions, row))

        steps = run(
            ENGINES[engine] if isinstance(engine, str) else engine,
            surface, k, rng, boxes=boxes, accepts=accepts, n_gone=self.n_gone,
        )  # fmt: skip
        found, is_interrupted = Best(k, len(boxes[0])).incumbent(-np.inf, 0), False
        empty = self._answer(found, [], k, name, levels, 0.0)
        try:
            for found in steps:
                seconds = time.monotonic() - started
                if progress:
                    progress(self._told(found, empty, seconds))
                if seconds > budget_s:
                    break
        except KeyboardInterrupt:
            is_interrupted = True
        finally:
            steps.close()
        configs = self._configs(regions, found, k)
        answer = self._answer(found, configs, k, name, levels, time.monotonic() - started)
        return replace(answer, is_interrupted=is_interrupted)

    def _wanted(self, regions: Regions, row: Places) -> Iterator[dict[str, ConfigValue]]:
        return (config for config in regions.configs(row) if self.is_wanted(config))

    def _configs(self, regions: Regions, found: Incumbent, k: int) -> list[dict[str, ConfigValue]]:
        """Those of the rows, in their order: the first of every cell, then the others of it."""
        members = (config for row in found.rows for config in self._wanted(regions, row))
        return list(itertools.islice(members, k))

    def _answer(
        self,
        found: Incumbent,
        configs: list[dict[str, ConfigValue]],
        k: int,
        engine: str,
        levels: Levels,
        seconds: float,
    ) -> TopK:
        values = np.empty(0)
        if configs:
            values = self.model.predict(self._frame(configs)).mean
            order = np.argsort(values, kind="stable")
            configs, values = [configs[i] for i in order], values[order]
        lowest = min(found.rest, float(found.values.min(initial=np.inf)))
        bound = lowest - slack(self.form, levels)
        if len(values) and bound != -np.inf:
            in_units = float(self.model.at_scores(self._frame(configs[:1]), np.array([bound]))[0])
            bound = min(in_units, float(values[0]))
        return TopK(
            configs=configs,
            values=values,
            bound=bound,
            is_exact=found.gap == 0 and (len(configs) == k or found.rest == np.inf),
            n_configs=levels.n_configs,
            n_assessed=min(found.n_assessed, levels.n_configs)
            if found.gap > 0
            else levels.n_configs,
            engine=engine,
            seconds=seconds,
        )

    def _told(self, found: Incumbent, empty: TopK, seconds: float) -> TopK:
        """What is known on the way: values and bound alone, in the model's units."""
        frame = self._frame([{}])
        raw = np.array([*found.values, found.rest])
        values = self.model.at_scores(frame.loc[np.zeros(len(raw), dtype=int)], raw)
        bound = float(min(values)) if np.isfinite(found.rest) else -np.inf
        return replace(
            empty,
            values=values[:-1],
            bound=bound,
            n_assessed=min(found.n_assessed, empty.n_configs),
            seconds=seconds,
        )

    def _frame(self, configs: Sequence[Config]) -> pd.DataFrame:
        return framed(configs, self.space, self.context)


class Regions:
    """The configurations that a row stands for: levels that the model can't tell apart."""

    def __init__(self, levels: Levels, cells: Sequence[Cells]) -> None:
        """One set of cells for each box of the levels."""
        self._levels = levels
        self._members: list[list[dict[int, Places]]] = []
        for of_box in cells:
            middle: Box = of_box.representatives()
            self._members.append(
                [
                    dict(zip(firsts.tolist(), members, strict=True))
                    for firsts, members in zip(middle, of_box.members, strict=True)
                ]
            )

    def configs(self, row: Places) -> Iterator[dict[str, ConfigValue]]:
        """The middle one first, and then outwards."""
        members = next(
            [kept[int(level)] for kept, level in zip(box, row, strict=True)]
            for box in self._members
            if all(int(level) in kept for kept, level in zip(box, row, strict=True))
        )
        outwards = [_outwards(levels) for levels in members]
        for chosen in itertools.product(*outwards):
            yield self._levels.config(chosen)


def _outwards(levels: Places) -> list[int]:
    middle = len(levels) // 2
    return [int(levels[i]) for i in sorted(range(len(levels)), key=lambda i: abs(i - middle))]


def framed(
    configs: Sequence[Config], space: SearchSpace, context: Mapping[str, object]
) -> pd.DataFrame:
    """`configs` as rows that a meta-model reads, each in the same context."""
    frame = frame_of(configs, space.names)
    return pd.concat([frame, pd.DataFrame(dict(context), index=frame.index)], axis=1)


def _asked(
    model: MetaModel,
    space: SearchSpace,
    k: int,
    context: Mapping[str, object],
    is_wanted: Constraint,
    rng: np.random.Generator,
) -> TopK:
    """Of a model without a formula: about every configuration of a small space, else some."""
    started = time.monotonic()

    def worth(configs: Sequence[Config]) -> Vector:
        parts = [
            -model.predict(framed(configs[i : i + MAX_AT_ONCE], space, context)).mean
            for i in range(0, len(configs), MAX_AT_ONCE)
        ]
        return np.concatenate(parts)

    everything = space.enumerate() if space.n_configs <= MAX_LISTED else []
    is_complete = 0 < len(everything) <= MAX_ASKED
    if is_complete:
        configs, values = everything, -worth(everything)
    else:
        found = local_search(space, worth, start=[], rng=rng)
        configs, values = [dict(config) for config in found.configs], -found.worth
    order = np.argsort(values, kind="stable")
    kept = list(itertools.islice((i for i in order if is_wanted(configs[i])), k))
    return TopK(
        configs=[configs[i] for i in kept],
        values=values[kept],
        bound=float(values[order[0]]) if is_complete else -np.inf,
        is_exact=is_complete,
        n_configs=len(configs),
        n_assessed=len(configs),
        engine="enumerated" if is_complete else "local",
        seconds=time.monotonic() - started,
    )
