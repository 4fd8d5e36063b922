"""Which kind of meta-model predicts these trials best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlflow_meta.features import Encoder
from mlflow_meta.metrics import rmse
from mlflow_meta.models import ZOO
from mlflow_meta.models.baselines import BASELINES, Mean
from mlflow_meta.models.cross_validation import (
    cross_predict,
    folds_across,
    folds_within,
    predict_later,
    spearman_by_task,
)
from mlflow_meta.models.meta_model import MAX_JUDGED, MetaModel, check_trials, task_scores
from mlflow_meta.models.regressor import Predictor
from mlflow_meta.models.sampling import sampled
from mlflow_meta.space import SearchSpace

PREFERRED = "transfer"
MAX_CELLS = 100_000  # trials times features up to which all candidates are asked everything


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
    which a batch is chosen best. Of more than `MAX_JUDGED` trials, so many are drawn to compare
    them on, and only the first is then fitted on all.

    Raises:
        TooLittle: If there are too few trials.
        ValueError: If a name is not in the zoo.
    """
    names = list(names)
    if unknown := [name for name in names if name not in ZOO]:
        raise ValueError(f"There is no meta-model {unknown[0]!r}; there are {', '.join(ZOO)}.")
    check_trials(trials)
    some = some_of(trials)
    candidates = []
    for name in names:
        progress(f"cross-validating {name}")
        model = ZOO[name]()
        model.fit(some, space)
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
    if len(some) < len(trials):
        progress(f"fitting {candidates[0].name} on all trials")
        candidates[0].model.fit(trials, space)
    return candidates


def some_of(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials on which candidates are compared: all, or as many as there is time for."""
    tasks = trials["task"].astype(str).to_numpy(dtype=object)
    return trials.iloc[sampled(tasks, MAX_JUDGED)]


def _is_clearly_better(one: Candidate, other: Candidate) -> bool:
    """Whether `one` has the smaller squared error by more than twice its standard error."""
    errors = [(c.model.cv_scores - c.model.cv_predicted) ** 2 for c in (other, one)]
    gains = errors[0] - errors[1]
    return bool(gains.mean() > 2 * gains.std() / np.sqrt(len(gains)))


def score_table(candidates: Sequence[Candidate], trials: pd.DataFrame) -> pd.DataFrame:
    """How well each candidate predicts, and how well anyone does without a model.

    Args:
        candidates: As `compare` gives them.
        trials: Those given to it, in the order of their start; see `some_of`.

    Returns:
        One row for each candidate in its order, and after them the `BASELINES`: `model`; `rmse` and
        `spearman` as `Candidate` has them; `spearman_later`, of later trials when only the earlier
        ones are known; `spearman_new_task`, of tasks that were held out whole. Correlations are nan
        where they can't be told; the latter two also of all candidates but the first where the
        trials have more than `MAX_CELLS` features in all.
    """
    n_cells = len(trials) * max(len(c.model.encoder.names) for c in candidates)
    trials = some_of(trials)
    tasks, scores = trials["task"].astype(str).to_numpy(dtype=object), task_scores(trials)
    by_task = Encoder.by_task(trials, candidates[0].model.encoder.space)

    def spearmans(make: Callable[[], Predictor], encoder: Encoder) -> dict[str, float]:
        X, groups = encoder.encode(trials), encoder.groups
        later = predict_later(make, X, scores, groups).mean
        new = cross_predict(make, X, scores, groups, folds_across(tasks)).mean
        return {
            "spearman_later": spearman_by_task(tasks, scores, later),
            "spearman_new_task": spearman_by_task(tasks, scores, new),
        }

    n_asked = len(candidates) if n_cells <= MAX_CELLS else 1
    rows: list[dict[str, object]] = []
    for place, c in enumerate(candidates):
        rows.append({"model": c.name, "rmse": c.rmse, "spearman": c.spearman})
        if place < n_asked:
            rows[-1] |= spearmans(c.model.make_regressor, c.model.encoder)
    X = by_task.encode(trials)
    for name, make in BASELINES.items():
        found = cross_predict(make, X, scores, by_task.groups, folds_within(tasks)).mean
        row = {"model": name, "rmse": rmse(scores, found)}
        if make is not Mean:  # which puts nothing in any order
            row |= {"spearman": spearman_by_task(tasks, scores, found), **spearmans(make, by_task)}
        rows.append(row)
    return pd.DataFrame(rows)
