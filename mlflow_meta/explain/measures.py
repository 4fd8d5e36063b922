"""How much each param matters: by the model, and by the trials alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.explain.rows import is_set, plain, unit
from mlflow_meta.models import MetaModel
from mlflow_meta.models.meta_model import task_scores
from mlflow_meta.space import Categorical, Param, SearchSpace

Vector = NDArray[np.float64]

TOP = 0.1  # share of a task's trials, the best, whose params PED-ANOVA looks at
MIN_TOP = 2  # trials that are looked at anyway
N_BINS = 50  # of a numeric param's scale
MAX_TASKS = 3  # the largest, whose trials are permuted: a model may need seconds for each
MAX_ROWS = 100  # trials that are permuted
N_REPEATS = 3  # permutations of each param
_PRIOR = 1.0  # trials that the uniform density counts for


def importance(
    model: MetaModel,
    trials: pd.DataFrame,
    space: SearchSpace,
    *,
    task: str | None,
    rng: np.random.Generator,
    n_repeats: int = N_REPEATS,
) -> pd.DataFrame:
    """How much each param matters, told in two ways: by the model, and by the trials alone.

    Args:
        model: Fitted.
        trials: What it was fitted on, or newer ones.
        space: Whose params are asked about.
        task: Whose trials count; those of all tasks for None, or where it has none.
        rng: Equal generators give equal answers.
        n_repeats: Permutations of each param.

    Returns:
        One row a param, the most important by the model first: `param`; `permutation`, see
        `permutation_importance`; `ped_anova`, see `ped_anova`, as a share of the params' sum; and
        `n`, in how many of the trials the param is set.
    """
    own = trials[trials["task"].astype(str) == task]
    rows = (trials if task is None or own.empty else own).reset_index(drop=True)
    scores = task_scores(rows)
    tasks = rows["task"].astype(str).to_numpy(dtype=object)
    divergence = {}
    for name, param in space.params.items():
        there = is_set(rows, name)
        # In the part of the space where the param exists, which counts by its share of the trials.
        share = there.mean() if len(rows) else 0.0
        found = ped_anova(_bins(rows, name, param), param, scores, tasks, there)
        divergence[name] = share * found
    total = sum(divergence.values()) or 1.0
    permuted = permutation_importance(model, rows, scores, space.names, rng, n_repeats)
    frame = pd.DataFrame(
        {
            "param": space.names,
            "permutation": [permuted[name] for name in space.names],
            "ped_anova": [divergence[name] / total for name in space.names],
            "n": [int(is_set(rows, name).sum()) for name in space.names],
        }
    )
    order = ["permutation", "ped_anova"]
    return frame.sort_values(order, ascending=False, kind="stable", ignore_index=True)


def ped_anova(
    bins: NDArray[np.int64],
    param: Param,
    scores: Vector,
    tasks: NDArray[np.object_],
    there: NDArray[np.bool_],
) -> float:
    """How differently the best trials choose a param from how all trials do.

    sum_b q(b) * (p(b) / q(b) - 1)^2, the Pearson divergence of p from q: the density of the best
    `TOP` of the trials and that of all of them, over the bins b of the param's scale. It is the
    variance, over the trials, of how likely a value of the param is to be among the best, apart
    from a factor that all params share (Watanabe et al., PED-ANOVA, IJCAI 2023).

    Args:
        bins: `(n,)`, where each trial lies on the scale; see `n_bins`.
        param: Whose scale it is.
        scores: `(n,)`, lower is better.
        tasks: `(n,)`; the best are those of each task.
        there: `(n,)`, which of the trials have the param; the others do not count.
    """
    top = np.zeros(len(scores), dtype=bool)
    for task in pd.unique(tasks[there]):
        own = np.flatnonzero(there & (tasks == task))
        n_top = min(max(MIN_TOP, int(np.ceil(TOP * len(own)))), len(own))
        top[own] = scores[own] <= np.sort(scores[own])[n_top - 1]
    if there.sum() < 2:
        return 0.0
    q = density(bins[there], param)
    p = density(bins[top & there], param)
    return float(np.sum(q * (p / q - 1.0) ** 2))


def n_bins(param: Param) -> int:
    """Choices of a categorical param; cells of equal width of another's scale."""
    return int(min(param.n_values, N_BINS))


def density(bins: NDArray[np.int64], param: Param) -> Vector:
    """Share `(n_bins,)` of each bin, estimated from the bins `(n,)` of some trials.

    Counts, and one trial more that is spread evenly, so that no bin is impossible. On a numeric
    scale each trial is a normal of Scott's width, 1.059 * min(std, IQR / 1.34) * n^(-1/5) but at
    least 0.3 bins, cut at the ends of the scale.
    """
    size = n_bins(param)
    even = np.full(size, _PRIOR / size)
    counts = np.bincount(bins, minlength=size).astype(float)
    if not (isinstance(param, Categorical) and not param.is_ordered):
        quartiles = np.quantile(bins, (0.25, 0.75))
        spread = min(float(bins.std()), float(quartiles[1] - quartiles[0]) / 1.34)
        width = max(1.059 * spread * len(bins) ** -0.2, 0.5 / 1.64)
        places = np.arange(size)
        kernels = np.exp(-0.5 * ((places[:, None] - places) / width) ** 2)
        counts = kernels / kernels.sum(axis=0) @ counts
    return np.asarray((counts + even) / (len(bins) + _PRIOR))


def permutation_importance(
    model: MetaModel,
    trials: pd.DataFrame,
    scores: Vector,
    names: Sequence[str],
    rng: np.random.Generator,
    n_repeats: int = N_REPEATS,
) -> dict[str, float]:
    """How much worse the model gets where a param says nothing.

    mean over repeats of mean((score - model(permuted))^2) - mean((score - model(trials))^2): a
    param's values change places among the trials of a task that have it. In squared standard
    scores, where always predicting the average errs by about 1; negative is chance. Asked of at
    most `MAX_ROWS` trials of the `MAX_TASKS` largest tasks.
    """
    largest = trials["task"].astype(str).value_counts().index[:MAX_TASKS]
    pool = np.flatnonzero(trials["task"].astype(str).isin(largest))
    kept = np.sort(rng.permutation(pool)[:MAX_ROWS])
    rows, observed = trials.iloc[kept].reset_index(drop=True), scores[kept]
    tasks = rows["task"].astype(str).to_numpy(dtype=object)
    asked = [name for name in names if is_set(rows, name).any()]
    increase = dict.fromkeys(names, 0.0)
    if not asked:
        return increase
    encoder = model.encoder
    X = encoder.encode(rows)
    shuffled = [X]
    for name in asked:
        own = [np.flatnonzero((tasks == task) & is_set(rows, name)) for task in pd.unique(tasks)]
        source = f"params.{name}"
        columns = np.flatnonzero([column.source == source for column in encoder.columns])
        for _ in range(n_repeats):
            order = np.arange(len(rows))
            for places in own:
                order[places] = rng.permutation(places)
            # A column of X is made from its param alone: both are permuted alike.
            moved = X.copy()
            moved[:, columns] = X[np.ix_(order, columns)]
            shuffled.append(moved)
    predicted = model.score_encoded(np.concatenate(shuffled)).mean.reshape(-1, len(rows))
    errors = np.mean((observed - predicted) ** 2, axis=1)
    worse = errors[1:].reshape(len(asked), n_repeats).mean(axis=1) - errors[0]
    return increase | dict(zip(asked, worse.tolist(), strict=True))


def _bins(rows: pd.DataFrame, name: str, param: Param) -> NDArray[np.int64]:
    """Bin `(n,)` of each row; what lies outside the scale is at its end."""
    if f"params.{name}" not in rows:
        return np.zeros(len(rows), dtype=np.int64)
    values = rows[f"params.{name}"]
    if isinstance(param, Categorical):
        found = [param.nearest(v) if not pd.isna(v) else None for v in plain(values)]  # type: ignore[arg-type, call-overload]
        places = {_key(choice): i for i, choice in enumerate(param.choices)}
        return np.array([places.get(_key(choice), 0) for choice in found], dtype=np.int64)
    place = np.nan_to_num(np.clip(unit(values, param), 0.0, 1.0), nan=0.5)
    # Whole cells: the ends of the scale are the middles of the first bin and of the last.
    return np.rint(place * (n_bins(param) - 1)).astype(np.int64)


def _key(choice: object) -> tuple[bool, object]:
    return isinstance(choice, bool), choice
