"""Why: which params matter, what each one does, and which past trials are like a configuration.

trials:   frame with `task`, `value` (minimised) and `params.<name>`, as `models.meta_model` has it
curve:    frame with `at` (a value of the param), `mean`, `low` and `high`, in rising order of `at`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.columns import config_of
from mlflow_meta.metrics import spearman
from mlflow_meta.models import MetaModel
from mlflow_meta.models.meta_model import task_scores
from mlflow_meta.proposal import context_of, in_context
from mlflow_meta.space import Categorical, Param, SearchSpace
from mlflow_meta.space.params import is_active, same
from mlflow_meta.trials import Config, ConfigValue, Direction

Vector = NDArray[np.float64]

TOP = 0.1  # share of a task's trials, the best, whose params PED-ANOVA looks at
MIN_TOP = 2  # trials that are looked at anyway
N_BINS = 50  # of a numeric param's scale
MAX_TASKS = 3  # the largest, whose trials are permuted: a model may need seconds for each
MAX_ROWS = 100  # trials that are permuted
N_REPEATS = 3  # permutations of each param
N_CONFIGS = 30  # random configurations over which a curve is averaged
N_POINTS = 15  # of the curve of a numeric param
MAX_CURVES = 6
BAND = 0.8  # share of the configurations that lie in a curve's band
_PRIOR = 1.0  # trials that the uniform density counts for
_MONOTONE = 0.9  # rank correlation from which a curve is told as rising or falling
_FLAT = 0.05  # of the largest curve's range, below which a curve says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a meta-model has learned of one task's params.

    Attributes:
        importance: As `importance` returns it.
        curves: Of the most important params, the first one first: name -> curve, in the metric's
            own units and direction.
    """

    importance: pd.DataFrame
    curves: Mapping[str, pd.DataFrame]


def explain(
    model: MetaModel,
    trials: pd.DataFrame,
    space: SearchSpace,
    *,
    task: str,
    direction: Direction,
    rng: np.random.Generator,
) -> Explanation:
    """Importance of every param on `task`, and the curves of up to `MAX_CURVES` of them."""
    found = importance(model, trials, space, task=task, rng=rng)
    configs, context = whole_configs(space, N_CONFIGS, rng), context_of(trials, space, task)
    curves = {}
    for name in found.loc[found["n"] > 0, "param"].head(MAX_CURVES):
        curve = partial_dependence(model, space, name, task=task, configs=configs, context=context)
        if direction is Direction.MAXIMIZE:
            flipped = {"mean": -curve["mean"], "low": -curve["high"], "high": -curve["low"]}
            curve = curve.assign(**flipped)
        curves[name] = curve
    return Explanation(importance=found, curves=curves)


def importance(
    model: MetaModel,
    trials: pd.DataFrame,
    space: SearchSpace,
    *,
    task: str | None,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """How much each param matters, told in two ways: by the model, and by the trials alone.

    Args:
        model: Fitted.
        trials: What it was fitted on, or newer ones.
        space: Whose params are asked about.
        task: Whose trials count; those of all tasks for None, or where it has none.
        rng: Equal generators give equal answers.

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
        there = _is_set(rows, name)
        # In the part of the space where the param exists, which counts by its share of the trials.
        share = there.mean() if len(rows) else 0.0
        found = ped_anova(_bins(rows, name, param), param, scores, tasks, there)
        divergence[name] = share * found
    total = sum(divergence.values()) or 1.0
    permuted = permutation_importance(model, rows, scores, space.names, rng)
    frame = pd.DataFrame(
        {
            "param": space.names,
            "permutation": [permuted[name] for name in space.names],
            "ped_anova": [divergence[name] / total for name in space.names],
            "n": [int(_is_set(rows, name).sum()) for name in space.names],
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
    asked = [name for name in names if _is_set(rows, name).any()]
    error = float(np.mean((observed - model.score(rows).mean) ** 2)) if asked else 0.0
    increase = dict.fromkeys(names, 0.0)
    for name in asked:
        shuffled = []
        for _ in range(N_REPEATS):
            order = np.arange(len(rows))
            for task in pd.unique(tasks):
                own = np.flatnonzero((tasks == task) & _is_set(rows, name))
                order[own] = rng.permutation(own)
            column = rows[f"params.{name}"].take(order).reset_index(drop=True)
            shuffled.append(rows.assign(**{f"params.{name}": column}))
        predicted = model.score(pd.concat(shuffled, ignore_index=True)).mean
        worse = np.mean((np.tile(observed, N_REPEATS) - predicted) ** 2)
        increase[name] = float(worse) - error
    return increase


def whole_configs(
    space: SearchSpace, n: int, rng: np.random.Generator
) -> list[dict[str, ConfigValue]]:
    """`n` random configurations that set every param, also those that are inactive."""
    columns = {name: param.sample(n, rng) for name, param in space.params.items()}
    return [{name: columns[name][i] for name in columns} for i in range(n)]


def partial_dependence(
    model: MetaModel,
    space: SearchSpace,
    param: str,
    *,
    task: str,
    configs: Sequence[Config],
    context: Mapping[str, object],
) -> pd.DataFrame:
    """What the model expects as one param moves over its scale, all else as in `configs`.

    mean(x) = average over configs c of model(c with param = x); `low` and `high` are the quantiles
    over the configs between which `BAND` of them lie, so that a wide band means that it depends on
    the other params.

    Args:
        model: Fitted.
        space: Where the param's scale and conditions are.
        param: Its name. Where it exists only under other choices, these are made.
        task: In whose units.
        configs: At least one. They may set inactive params too (see `whole_configs`): these count
            where a value of `param` makes them exist.
        context: What is given, as `proposal.context_of` has it.

    Returns:
        A curve of values, minimised: at most `N_POINTS` of a numeric param, and every choice of
        another.
    """
    spec = space.params[param]
    grid = _grid(spec)
    allowing = [_allowing(space, param, config, i) for i, config in enumerate(configs)]
    moved = [space.active({**config, param: value}) for value in grid for config in allowing]
    predicted = model.predict(in_context(moved, space, task, context)).mean
    by_value = predicted.reshape(len(grid), len(configs))
    tail = (1 - BAND) / 2
    return pd.DataFrame(
        {
            "at": pd.Series(grid, dtype=object),
            "mean": by_value.mean(axis=1),
            "low": np.quantile(by_value, tail, axis=1),
            "high": np.quantile(by_value, 1 - tail, axis=1),
        }
    )


def nearest(
    config: Config, trials: pd.DataFrame, space: SearchSpace, *, task: str, k: int
) -> pd.DataFrame:
    """The past trials that are most like a configuration; those of its own task come first.

    distance^2 = sum over params of d^2, where d is the distance on the param's scale, 0 or 1 for
    choices without order, and 1 where only one of the two has the param.

    Returns:
        Up to `k` rows of `trials`, the nearest first, with the columns `distance` and `differs`: a
        dict of param -> (the trial's value, the configuration's value), None for one that is not
        set.
    """
    config = space.active(config)
    squared = np.zeros(len(trials))
    for name, param in space.params.items():
        there = _is_active_in(trials, space, name)
        if name not in config:
            squared += there
            continue
        # What is no number, such as an unknown category, is as far as can be.
        away = np.ones(len(trials))
        away[there] = _distances(trials.loc[there, f"params.{name}"], param, config[name])
        squared += away**2
    foreign = (trials["task"].astype(str) != task).to_numpy(bool)
    order = np.lexsort([squared, foreign])[:k]
    found = trials.iloc[order].reset_index(drop=True)
    differs = [_differences(space.active(config_of(r)), config, space) for r in _records(found)]
    return found.assign(distance=np.sqrt(squared[order]), differs=pd.Series(differs, dtype=object))


def effect(curve: pd.DataFrame, param: Param, name: str, direction: Direction) -> str:
    """What a curve says, as half a sentence whose subject is the metric."""
    means = curve["mean"].to_numpy(float)
    best = int(np.argmin(direction.sign * means))
    if isinstance(param, Categorical) and not param.is_ordered:
        return f"is best with {name} = {curve['at'][best]}"
    trend = spearman(np.arange(len(means), dtype=float), means) if np.ptp(means) > 0 else 0.0
    ends = f"({means[0]:.3g} at {_short(curve['at'].iloc[0])}, {means[-1]:.3g} at " \
           f"{_short(curve['at'].iloc[-1])})"  # fmt: skip
    if abs(trend) >= _MONOTONE:
        return f"{'rises' if trend > 0 else 'falls'} with {name} {ends}"
    return f"is best with {name} near {_short(curve['at'][best])}"


def sentence(
    found: Explanation, space: SearchSpace, metric: str, direction: Direction, n: int = 3
) -> str:
    """What the `n` most important params do, in one sentence; of flat curves, nothing."""
    ranges = {name: float(np.ptp(curve["mean"])) for name, curve in found.curves.items()}
    most = max(ranges.values(), default=0.0)
    told = [
        effect(found.curves[name], space.params[name], name, direction)
        for name, width in ranges.items()
        if most > 0 and width >= _FLAT * most
    ][:n]
    if not told:
        return f"{metric} is expected to be the same whatever the params are."
    return f"{metric} {', '.join(told[:-1])}{' and ' if told[:-1] else ''}{told[-1]}."


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _is_set(rows: pd.DataFrame, name: str) -> NDArray[np.bool_]:
    column = f"params.{name}"
    if column not in rows:
        return np.zeros(len(rows), dtype=bool)
    return rows[column].notna().to_numpy(bool)


def _is_active_in(rows: pd.DataFrame, space: SearchSpace, name: str) -> NDArray[np.bool_]:
    """Which rows have set the param, and its parents to what makes it exist."""
    there = _is_set(rows, name)
    for parent, values in space.params[name].when.items():
        if there.any():
            allowed = [
                any(same(value, v) for v in values) for value in _plain(rows[f"params.{parent}"])
            ] if f"params.{parent}" in rows else [False] * len(rows)  # fmt: skip
            there = there & np.array(allowed) & _is_active_in(rows, space, parent)
    return there


def _plain(values: pd.Series) -> list[object]:
    return [v.item() if isinstance(v, np.generic) else v for v in values.astype(object)]


def _unit(values: pd.Series, param: Param) -> Vector:
    numbers = pd.to_numeric(values.astype(object), errors="coerce").to_numpy(float, na_value=np.nan)
    return np.asarray(param.to_unit(numbers))


def _distances(values: pd.Series, param: Param, here: ConfigValue) -> Vector:
    if isinstance(param, Categorical) and not param.is_ordered:
        return np.array([float(not same(value, here)) for value in _plain(values)])
    place = param.to_unit(np.array([float(here)]))[0]
    away = np.abs(np.clip(_unit(values, param), -1.0, 2.0) - place)
    return np.asarray(np.where(np.isfinite(away), away, 1.0))


def _bins(rows: pd.DataFrame, name: str, param: Param) -> NDArray[np.int64]:
    """Bin `(n,)` of each row; what lies outside the scale is at its end."""
    if f"params.{name}" not in rows:
        return np.zeros(len(rows), dtype=np.int64)
    values = rows[f"params.{name}"]
    if isinstance(param, Categorical):
        found = [param.nearest(v) if not pd.isna(v) else None for v in _plain(values)]  # type: ignore[arg-type, call-overload]
        places = {_key(choice): i for i, choice in enumerate(param.choices)}
        return np.array([places.get(_key(choice), 0) for choice in found], dtype=np.int64)
    unit = np.nan_to_num(np.clip(_unit(values, param), 0.0, 1.0), nan=0.5)
    # Whole cells: the ends of the scale are the middles of the first bin and of the last.
    return np.rint(unit * (n_bins(param) - 1)).astype(np.int64)


def _key(choice: object) -> tuple[bool, object]:
    return isinstance(choice, bool), choice


def _grid(param: Param) -> list[ConfigValue]:
    if isinstance(param, Categorical) or param.n_values <= N_POINTS:
        return param.grid()
    return list(dict.fromkeys(param.from_unit(np.linspace(0.0, 1.0, N_POINTS))))


def _allowing(space: SearchSpace, name: str, config: Config, turn: int) -> dict[str, ConfigValue]:
    """`config` with the choices under which a param exists; of several, each has its turn."""
    made = dict(config)
    for parent, values in space.params[name].when.items():
        if not is_active({parent: values}, made):
            made[parent] = values[turn % len(values)]
        made = _allowing(space, parent, made, turn)
    return made


def _records(frame: pd.DataFrame) -> list[Mapping[object, object]]:
    return [dict(row) for row in frame.to_dict("records")]


def _differences(
    theirs: Config, ours: Config, space: SearchSpace
) -> dict[str, tuple[ConfigValue | None, ConfigValue | None]]:
    pairs = {name: (theirs.get(name), ours.get(name)) for name in space.names}
    return {name: pair for name, pair in pairs.items() if not same(*pair)}
