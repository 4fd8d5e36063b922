"""Which kind of meta-model predicts these trials best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from mlflow_meta.features import Encoder
from mlflow_meta.metrics import rmse
from mlflow_meta.models import ZOO
from mlflow_meta.models.baselines import BASELINES, Mean
from mlflow_meta.models.calls import Calls
from mlflow_meta.models.cross_validation import (
    Split,
    each_held_out,
    each_later,
    folds_across,
    folds_within,
    predicting,
    spearman_by_task,
)
from mlflow_meta.models.meta_model import MAX_JUDGED, MetaModel, check_trials, task_scores
from mlflow_meta.models.regressor import Prediction, Predictor
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
    executor: Executor | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Candidate]:
    """Cross-validate the meta-models of the zoo on `trials`, by task; the one to use first.

    They are judged by their error on held-out trials of known tasks, since that is what a
    suggestion is: the next trial of a task that mostly has some already. `PREFERRED` comes first
    while no other is clearly better, by twice the standard error of the difference (of several
    rivals, one is better once by luck): it alone knows how configurations vary together, from
    which a batch is chosen best. Of more than `MAX_JUDGED` trials, so many are drawn to compare
    them on, and only the first is then fitted on all.

    Args:
        trials: As `MetaModel.fit` takes them.
        space: How to read their params.
        names: Which of the zoo.
        executor: Where to fit them all side by side; None for one after the other, which gives the
            same. Workers need this package, and of others the same versions.
        progress: Called with what is being waited for.

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
    with Calls(executor) as calls:
        begun = map(partial(_begun, some, space, calls), names)
        for name, model, end in list(begun) if executor else begun:
            progress(f"cross-validating {name}")
            end()
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
        candidates[0].model.fit(trials, space, executor=executor)
    return candidates


def _begun(
    trials: pd.DataFrame, space: SearchSpace, calls: Calls, name: str
) -> tuple[str, MetaModel, Callable[[], None]]:
    model = ZOO[name]()
    return name, model, model.fitting(trials, space, calls)


def some_of(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials on which candidates are compared: all, or as many as there is time for."""
    tasks = trials["task"].astype(str).to_numpy(dtype=object)
    return trials.iloc[sampled(tasks, MAX_JUDGED)]


def _is_clearly_better(one: Candidate, other: Candidate) -> bool:
    """Whether `one` has the smaller squared error by more than twice its standard error."""
    errors = [(c.model.cv_scores - c.model.cv_predicted) ** 2 for c in (other, one)]
    gains = errors[0] - errors[1]
    return bool(gains.mean() > 2 * gains.std() / np.sqrt(len(gains)))


def score_table(
    candidates: Sequence[Candidate], trials: pd.DataFrame, *, executor: Executor | None = None
) -> pd.DataFrame:
    """How well each candidate predicts, and how well anyone does without a model.

    Args:
        candidates: As `compare` gives them.
        trials: Those given to it, in the order of their start; see `some_of`.
        executor: As `compare` takes it.

    Returns:
        One row for each candidate in its order, and after them the `BASELINES`: `model`; `rmse` and
        `spearman` as `Candidate` has them; `spearman_later`, of later trials when only the earlier
        ones are known; `spearman_new_task`, of tasks that were held out whole. Correlations are nan
        where they can't be told; the latter two also of all candidates but the first where the
        trials have more than `MAX_CELLS` features in all.
    """
    n_cells = len(trials) * max(len(c.model.encoder.names) for c in candidates)
    n_asked = len(candidates) if n_cells <= MAX_CELLS else 1
    trials = some_of(trials)
    tasks, scores = trials["task"].astype(str).to_numpy(dtype=object), task_scores(trials)
    by_task = Encoder.by_task(trials, candidates[0].model.encoder.space)
    within, across = (each_held_out(folds(tasks)) for folds in (folds_within, folds_across))
    splits = {"spearman_later": each_later(len(trials)), "spearman_new_task": across}

    def spearmans(asked: Mapping[str, Callable[[], Prediction]]) -> dict[str, float]:
        return {k: spearman_by_task(tasks, scores, found().mean) for k, found in asked.items()}

    with Calls(executor) as calls:

        def begun(
            make: Callable[[], Predictor], encoder: Encoder, splits: Sequence[Split]
        ) -> Callable[[], Prediction]:
            X = encoder.encode(trials)
            return predicting(calls, make, X, scores, encoder.groups, splits)

        def begun_all(
            make: Callable[[], Predictor], encoder: Encoder
        ) -> dict[str, Callable[[], Prediction]]:
            return {name: begun(make, encoder, some) for name, some in splits.items()}

        models = [begun_all(c.model.make_regressor, c.model.encoder) for c in candidates[:n_asked]]
        models += [{} for _ in candidates[n_asked:]]
        held_out = {name: begun(make, by_task, within) for name, make in BASELINES.items()}
        others = {k: begun_all(make, by_task) for k, make in BASELINES.items() if make is not Mean}
        rows: list[dict[str, object]] = [
            {"model": c.name, "rmse": c.rmse, "spearman": c.spearman, **spearmans(asked)}
            for c, asked in zip(candidates, models, strict=True)
        ]
        for name, found in held_out.items():
            row: dict[str, object] = {"model": name, "rmse": rmse(scores, found().mean)}
            if name in others:  # the mean puts nothing in any order
                row |= spearmans({"spearman": found, **others[name]})
            rows.append(row)
    return pd.DataFrame(rows)
