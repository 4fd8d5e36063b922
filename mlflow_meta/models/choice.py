"""Which kind of meta-model predicts these trials best."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlflow_meta.models import ZOO
from mlflow_meta.models.meta_model import (
    MetaModel,
    check_trials,
    cross_predict,
    folds_across,
    spearman_by_task,
    task_scores,
)
from mlflow_meta.space import SearchSpace

PREFERRED = "transfer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One meta-model that was compared.

    Attributes:
        name: Its name in the zoo.
        model: Fitted on all trials.
        rmse: Error in predicting held-out trials of known tasks, in standard scores within a task;
            always predicting the average scores about 1.
        spearman: Rank correlation within a task, for the same predictions.
    """

    name: str
    model: MetaModel
    rmse: float
    spearman: float


def compare(
    trials: pd.DataFrame,
    space: SearchSpace,
    *,
    names: Iterable[str] = tuple(ZOO),
    progress: Callable[[str], None] = lambda _: None,
) -> list[Candidate]:
    """Cross-validate the meta-models of the zoo on `trials`, by task; the one to use first.

    They are judged by their error on held-out trials of known tasks, since that is what a
    suggestion is: the next trial of a task that mostly has some already. `PREFERRED` comes first
    while no other is clearly better, by twice the standard error of the difference (of several
    rivals, one is better once by luck): it alone knows how configurations vary together, from
    which a batch is chosen best.

    Raises:
        NothingToLearn: If there are too few trials.
    """
    check_trials(trials)
    candidates = []
    for name in names:
        progress(f"cross-validating {name}")
        model = ZOO[name]()
        model.fit(trials, space)
        candidates.append(
            Candidate(
                name=name,
                model=model,
                rmse=model.cv_rmse,
                spearman=model.cv_spearman,
            )
        )
    candidates.sort(key=lambda candidate: candidate.rmse)
    for i, candidate in enumerate(candidates):
        if candidate.name == PREFERRED and not _is_clearly_better(candidates[0], candidate):
            candidates.insert(0, candidates.pop(i))
    return candidates


def _is_clearly_better(one: Candidate, other: Candidate) -> bool:
    """Whether `one` has the smaller squared error by more than twice its standard error."""
    errors = [(c.model.cv_scores - c.model.cv_predicted) ** 2 for c in (other, one)]
    gains = errors[0] - errors[1]
    return bool(gains.mean() > 2 * gains.std() / np.sqrt(len(gains)))


def spearman_on_new_tasks(name: str, model: MetaModel, trials: pd.DataFrame) -> float:
    """Rank correlation within tasks that were held out whole, in up to 5 folds.

    Args:
        name: The kind of model, in the zoo.
        model: One of that kind, fitted on `trials`; gives the features.
        trials: What to cross-validate on.

    Returns:
        In [-1, 1]; nan where nothing is known, since no task leaves enough others to learn from.
    """
    tasks = trials["task"].astype(str).to_numpy(dtype=object)
    X = model.encoder.encode(trials)
    scores = task_scores(trials)
    held_out = cross_predict(
        ZOO[name]().make_regressor, X, scores, model.encoder.groups, folds_across(tasks)
    )
    return spearman_by_task(tasks, scores, held_out.mean)
