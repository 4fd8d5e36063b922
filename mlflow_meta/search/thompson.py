"""A batch by Thompson sampling: the best of the model, then of what it holds for possible.

Each draw is a function of the same form as the model, and so as fast to search exactly. Where the
draws agree, they choose alike: then the batch exploits; where the model is in doubt, it explores.

References:
    Russo, Van Roy, Kazerouni, Osband, Wen. *A Tutorial on Thompson Sampling*. 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mlflow_meta.models import Formed, MetaModel
from mlflow_meta.search.choose import Spread
from mlflow_meta.search.question import Progress, Question, TopK
from mlflow_meta.search.top import PATIENCE_S
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import Config, ConfigValue


def thompson(  # noqa: PLR0913 - as `top_k`
    model: MetaModel,
    space: SearchSpace,
    n: int,
    *,
    context: Mapping[str, object],
    tried: Sequence[Config],
    rng: np.random.Generator,
    budget_s: float | None = None,
    spread: Spread | None = None,
    progress: Progress | None = None,
) -> tuple[list[dict[str, ConfigValue]], TopK]:
    """Up to `n` configurations, and the search for the best of them.

    Args:
        model: Fitted; its regressor must be `Formed`.
        space: Where to search.
        n: How many, at least 1.
        context: What is given.
        tried: Configurations to leave out.
        rng: For the draws.
        budget_s: Seconds for all searches together, half of them for the first.
        spread: As `top_k` takes it.
        progress: As `top_k` takes it, for the first search.

    Returns:
        Configurations, all different, that of the best prediction first; fewer than `n` only where
        there are no more. And what the search for this first one has found out.
    """
    assert isinstance(model.regressor, Formed)
    gone = {space.key(space.active(config)) for config in tried}
    budget_s = budget_s or PATIENCE_S
    question = Question(
        model=model, space=space, form=model.regressor.form(), context=context,
        is_wanted=lambda config: space.key(config) not in gone and space.satisfied(config),
        n_gone=len(gone), is_constrained=bool(space.constraints), spread=spread,
    )  # fmt: skip
    best = question.answer(1, "auto", budget_s / 2, rng, progress)
    chosen = best.configs[:]
    while chosen and len(chosen) < n and not best.is_interrupted:
        gone.add(space.key(chosen[-1]))
        drawn = replace(question, form=model.regressor.draw(rng), n_gone=len(gone))
        found = drawn.answer(1, "auto", budget_s / 2 / n, rng)
        if not found.configs:
            break
        chosen += found.configs
    return chosen, best
