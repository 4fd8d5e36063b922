"""The k configurations that a meta-model predicts best, and by how much others may be better."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.models import MetaModel
from mlflow_meta.search.choose import ENGINES, KINDS, Spread
from mlflow_meta.search.local import local_search
from mlflow_meta.search.question import Constraint, Progress, Question, TopK, form_of, framed
from mlflow_meta.search.surface import Engine
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import Config

Vector = NDArray[np.float64]

MAX_LISTED = 200_000  # configurations, conditions not counted, up to which a space is listed
MAX_ASKED = 50_000  # configurations up to which a model without a formula is asked about all
MAX_AT_ONCE = 5_000  # configurations that it is asked about together
PATIENCE_S = 10.0  # that a search takes where no budget is given


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
    spread: Spread | None = None,
    progress: Progress | None = None,
) -> TopK:
    """Search a space for the `k` configurations that a meta-model predicts best.

    What the model is made of is searched, where it is a sum, trees or a network: spaces of 10^15
    configurations and more, with a bound. A Gaussian process or a blend has no such formula: it is
    asked about some thousands, broad to narrow, and all that is proven is what a small space shows.

    Args:
        model: Fitted.
        space: Where to search; need not be the one that the model was fitted with. Under its own
            constraints the engines that prove their result still do, if more slowly; of those that
            learn ("policy") the best rows are looked through, and fewer than `k` may be left.
        k: How many, at least 1.
        context: What is given: columns of a frame, such as `task` and `dataset.rows`.
        budget_s: Seconds after which the search ends with the best so far; `PATIENCE_S` if None.
            A step of the search may take it some tenths of a second further.
        engine: "auto" for the one that fits, "exact", "policy" (see `choose.engine_for`), "local"
            for asking the model broad to narrow; a name of `ENGINES`; or an engine of your own.
        rng: Equal generators give equal results, as long as the budget lasts; None for a fresh one.
        tried: Configurations to leave out.
        constraint: Configurations for which it is false are left out.
        spread: Runs engines that prove their result on more workers, as a `cluster.Cluster` has it;
            None for here.
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
    names = [*KINDS, "local", *ENGINES]
    if isinstance(engine, str) and engine not in names:
        raise ValueError(f"`engine` must be one of {names} or a function, but got {engine!r}.")
    gone = {space.key(space.active(config)) for config in tried}

    def is_wanted(config: Config) -> bool:
        is_new = not gone or space.key(config) not in gone
        is_met = constraint is None or constraint(config)
        return is_new and is_met and space.satisfied(config)

    rng = rng or np.random.default_rng()
    form = form_of(model)
    if engine == "local" or (engine == "auto" and form is None):
        return _asked(model, space, k, context or {}, is_wanted, rng)
    if form is None:
        raise ValueError(
            f"A {type(model.regressor).__name__} has no formula to search, or one that is too "
            "large. Pass engine='local' or 'auto'."
        )
    question = Question(
        model=model, space=space, form=form, context=context or {},
        is_wanted=is_wanted, n_gone=len(gone),
        is_constrained=constraint is not None or bool(space.constraints), spread=spread,
    )  # fmt: skip
    return question.answer(k, engine, budget_s or PATIENCE_S, rng, progress)


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
    wanted = list(itertools.islice((i for i in order if is_wanted(configs[i])), k + 1))
    kept, after = wanted[:k], wanted[k:]
    others = float(values[after[0]]) if after else np.inf
    return TopK(
        configs=[configs[i] for i in kept],
        values=values[kept],
        scores=values[kept],
        bound=float(values[order[0]]) if is_complete else -np.inf,
        rest=others if is_complete else -np.inf,
        is_exact=is_complete,
        n_configs=len(configs),
        n_assessed=len(configs),
        engine="enumerated" if is_complete else "local",
        seconds=time.monotonic() - started,
    )
