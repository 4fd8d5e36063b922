"""A search space mined from history: what the trials varied, how far, and under which choices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.columns import DISTRIBUTION, UNSET, columns_with, config_of, is_choice
from mlflow_meta.errors import TooLittle
from mlflow_meta.space.conditions import History, Rule, unexplained
from mlflow_meta.space.distributions import read_distribution
from mlflow_meta.space.files import InferredSpace
from mlflow_meta.space.params import Categorical, Float, Integer, Param, Vector, allows
from mlflow_meta.space.search_space import SearchSpace
from mlflow_meta.subsets import MAX_TEXTS, list_of

MAX_SEARCHED = 200  # params; a run that logs more has dumped all that its program knows
MAX_LISTED_NUMBERS = 6  # numbers up to which a param was taken from a list, not from a range
_TRIALS_PER_LISTED = 3  # trials per number that such a list needs
_MIN_GRID = 5  # numbers from which equal distances show a grid
_USUAL = 0.5  # share of a task's trials from which a param belongs to it
_ALWAYS_LOG = 1000.0  # largest over smallest from which a scale is logarithmic anyway
_MAYBE_LOG = 10.0  # from which it is if the logarithms are spread more evenly
_SEED = re.compile(r"(^|[._/ -])(random_?)?(seed|state)$", re.IGNORECASE)


def infer(trials: pd.DataFrame) -> InferredSpace:
    """The search space that the trials were drawn from, as far as they show it.

    A param whose distribution is told, and holds whatever the trials have set, is that one.

    Args:
        trials: Frame with `params.<name>`, typed by column; and `task`, since a param may be set in
            some tasks only. `distribution.<name>` where it is told, in any of the trials.

    Raises:
        TooLittle: If no param varies.
    """
    logged = columns_with(trials, "params.")
    columns = {c.removeprefix("params."): trials[c] for c in logged if trials[c].notna().any()}
    tasks = trials["task"].astype(str)
    left_out: dict[str, str] = {}
    found: dict[str, Param] = {}
    for name, values in columns.items():
        if exact := _told(name, values, trials):
            found[name] = exact
            continue
        reason = _why_not(name, values)
        if reason is None:
            found[name] = _param(values.dropna())
        else:
            left_out[name] = reason
    always = _always_listed(columns, found)
    both = found | always
    found = {name: both[name] for name in columns if name in both}
    left_out = {name: reason for name, reason in left_out.items() if name not in always}
    is_set = {name: columns[name].notna().to_numpy() for name in found}
    rare = _beyond_the_cap(is_set)
    left_out |= rare
    found = {name: param for name, param in found.items() if name not in rare}
    history = History(found, columns, tasks, _is_finished(trials))
    remarks: dict[str, str] = {}
    for name, param in list(found.items()):
        found[name], rule = _conditional(name, param, columns[name], history)
        if rule is not None:
            remarks[name] = rule.sentence
        elif columns[name].notna().groupby(tasks).mean().max() < _USUAL:
            left_out[name] = f"is set in {is_set[name].sum()} of {len(trials)} runs only"
        else:
            remarks[name] = unexplained(is_set[name], tasks)
    kept = {name: param for name, param in found.items() if name not in left_out}
    # A param whose parent was left out has lost its condition, and so have its own children.
    while orphans := [name for name, param in kept.items() if set(param.when) - set(kept)]:
        for name in orphans:
            parent = next(iter(kept.pop(name).when))
            left_out[name] = f"exists only under {parent}, which is left out"
    if not kept:
        why = "; ".join(f"{name} {reason}" for name, reason in list(left_out.items())[:5])
        raise TooLittle(
            f"No param varies over these {len(trials)} runs, so there is nothing to choose"
            f"{': ' + why if why else ''}. Train a few with other values, or write a search space "
            "by hand and pass it with --space."
        )
    return InferredSpace(
        SearchSpace(kept), left_out, {n: said for n, said in remarks.items() if said and n in kept}
    )


def conditioned(params: Mapping[str, Param], trials: pd.DataFrame) -> SearchSpace:
    """The space of params whose values are known, under the conditions that trials show.

    Args:
        params: At least one, without conditions; a trial may have set none of them.
        trials: As `infer` takes them.
    """
    logged = {name: f"params.{name}" for name in params if f"params.{name}" in trials}
    columns = {name: trials[column] for name, column in logged.items()}
    found = {name: params[name] for name in columns}
    history = History(found, columns, trials["task"].astype(str), _is_finished(trials))
    found = {
        name: _conditional(name, param, columns[name], history)[0]
        if columns[name].notna().any()
        else param
        for name, param in found.items()
    }
    return SearchSpace({name: found.get(name, param) for name, param in params.items()})


def _told(name: str, values: pd.Series, trials: pd.DataFrame) -> Param | None:
    """What the param was drawn from, where that is told and explains every value; else None."""
    if DISTRIBUTION + name not in trials:
        return None
    texts = trials.loc[values.notna(), DISTRIBUTION + name].dropna().unique()
    try:
        param = _widest([read_distribution(str(text)) for text in texts])
    except ValueError:
        return None
    if param is None or param.n_values < 2:
        return None
    if isinstance(param, Categorical) and _is_text(values):
        param = Categorical(choices=tuple(str(choice) for choice in param.choices))
    rows = pd.DataFrame({f"params.{name}": values.dropna().drop_duplicates()}).to_dict("records")
    known = (value for row in rows for value in config_of(row).values())
    return param if all(allows(param, value) for value in known) else None


def _widest(params: Sequence[Param]) -> Param | None:
    """The one that holds all others, on the same scale; None if there is none."""
    if not params:
        return None
    first = params[0]
    if all(param == first for param in params):
        return first
    if isinstance(first, Categorical) or not all(type(param) is type(first) for param in params):
        return None
    ranges = [param for param in params if not isinstance(param, Categorical)]
    low, high = min(p.low for p in ranges), max(p.high for p in ranges)
    fields = {key: getattr(first, key) for key in first.__slots__} | {"low": low, "high": high}
    scales = {(param.log, param.step) for param in ranges}
    return type(first)(**fields) if len(scales) == 1 else None


def _always_listed(
    columns: Mapping[str, pd.Series], found: Mapping[str, Param]
) -> dict[str, Param]:
    """The items that every run has listed, as fixed: the list is not whole without them."""
    lists = {list_of(name) for name in found} - {None}
    return {
        name: Categorical(choices=(True,))
        for name, values in columns.items()
        if name not in found and list_of(name) in lists and values.dropna().eq(True).all()
    }


def _why_not(name: str, values: pd.Series) -> str | None:
    """Why a param is not searched; None if it is."""
    known = values.dropna()
    distinct = known.nunique()
    if distinct < 2:
        return f"is always {known.iloc[0]}"
    if _SEED.search(name):
        return "is a seed"
    if _is_text(values) and not all(is_choice(text) for text in known.unique()):
        return "has texts that no one would choose: long ones, or with line breaks"
    if _is_text(values) and distinct > MAX_TEXTS:
        return f"has {distinct} different texts"
    return None


def _is_text(values: pd.Series) -> bool:
    return not pd.api.types.is_numeric_dtype(values)


def _param(values: pd.Series) -> Param:
    if pd.api.types.is_bool_dtype(values):
        return Categorical(choices=(False, True))
    if _is_text(values):
        return Categorical(choices=tuple(sorted(str(value) for value in values.unique())))
    whole = pd.api.types.is_integer_dtype(values)
    distinct = np.unique(values.to_numpy(np.int64 if whole else np.float64))
    spaced = bool(np.allclose(np.diff(distinct), 1.0))
    step = _step(distinct, len(values))
    listed = (
        len(distinct) <= MAX_LISTED_NUMBERS
        and len(values) >= _TRIALS_PER_LISTED * len(distinct)
        and not (whole and spaced)
        and (step is None or len(distinct) < _MIN_GRID)
    )
    log = _is_log(distinct)
    if listed:
        kind = int if whole else float
        return Categorical(choices=tuple(kind(n) for n in distinct), log=log)
    if whole:
        first, last = int(distinct[0]), int(distinct[-1])
        return Integer(low=first, high=last, log=log, step=int(step or 1))
    low, high = float(distinct[0]), float(distinct[-1])
    # Hyperopt's quniform and others write whole numbers as 12.0: scripts expect them to be whole.
    if step is None and np.all(distinct == np.round(distinct)) and high - low >= 1:
        step = 1.0
    return Float(low=low, high=high, log=log, step=step)


def _step(distinct: Vector, n: int) -> float | None:
    """The distance of the grid that `n` numbers were taken from; None for no grid, or one of 1.

    They must come again and again, and fill half of the grid: then no range has them by chance.
    """
    gaps = np.diff(distinct)
    if len(distinct) < _MIN_GRID or n < 2 * len(distinct):
        return None
    step = float(f"{gaps.min():.12g}")
    steps = (distinct[-1] - distinct[0]) / step
    on_grid = np.allclose(gaps / step, np.round(gaps / step), rtol=0.0, atol=1e-6)
    return step if on_grid and step != 1.0 and len(distinct) > steps / 2 else None


def _is_log(distinct: Vector) -> bool:
    low, high = distinct[0], distinct[-1]
    if low <= 0 or high / low < _MAYBE_LOG:
        return False
    if high / low >= _ALWAYS_LOG:
        return True
    logs = np.log(distinct)
    return _unevenness((logs - logs[0]) / (logs[-1] - logs[0])) < _unevenness(
        (distinct - low) / (high - low)
    )


def _unevenness(unit: Vector) -> float:
    """Kolmogorov-Smirnov distance of sorted positions in [0, 1] from an even spread."""
    return float(np.max(np.abs(unit - np.linspace(0.0, 1.0, len(unit)))))


def _beyond_the_cap(is_set: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The params that are not searched since more trials have others, with this as the reason."""
    ranked = sorted(is_set, key=lambda name: -int(is_set[name].sum()))
    why = f"is one of {len(is_set)} that vary; the {MAX_SEARCHED} that most runs have are searched"
    return dict.fromkeys(ranked[MAX_SEARCHED:], why)


def _is_finished(trials: pd.DataFrame) -> NDArray[np.bool_]:
    """The runs that have come to their end: others may have crashed before they logged all."""
    if "status" not in trials:
        return np.ones(len(trials), dtype=bool)
    return (trials["status"].astype(str) == "FINISHED").to_numpy(dtype=bool)


def _conditional(
    name: str, param: Param, values: pd.Series, history: History
) -> tuple[Param, Rule | None]:
    """A param with the condition under which it exists, if any, and what speaks for it.

    Programs write "None" for a text that does not exist: where another param tells when, it is no
    choice.
    """
    is_set = values.notna().to_numpy()
    if isinstance(param, Categorical) and set(UNSET) & set(map(str, param.choices)):
        real = tuple(c for c in param.choices if str(c) not in UNSET)
        is_real = is_set & ~values.astype(str).isin(UNSET).to_numpy()
        rule = history.rule(name, is_real) if len(real) > 1 else None
        if rule is not None:
            return replace(param, choices=real, when=rule.when), rule
    rule = history.rule(name, is_set)
    return (replace(param, when=rule.when) if rule else param), rule
