"""Features: a configuration in its context -> one row of numbers, with a spec for every column.

X:      `(n, d)`, finite everywhere
chosen: `params.<name>` of the search space. Numbers and ordered choices become their position on
        the parameter's scale, about [0, 1]; where a parameter is not set, the middle, 0.5. Other
        choices become one column each, 1 where chosen.
given:  the context. Numbers are standardised (on the log scale where they span decades),
        categories become one column each, and so does every task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.columns import CONTEXT, columns_with
from mlflow_meta.space import Categorical, SearchSpace
from mlflow_meta.space.params import same
from mlflow_meta.trials import ConfigValue

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

MAX_LEVELS = 20  # categories of a context column; more is text, such as a path or an id
MAX_GIVEN = 100  # columns of X for the context; fitting takes ever longer with each
MIN_SUPPORT = 2  # trials that a category needs before it gets a column of its own
_DECADES = 20.0  # largest over smallest from which a context number is taken on the log scale
_MONOTONE = 0.9  # gamma from which a context column follows from a parameter
_MAX_COMPARED = 100  # trials of a task that are compared with each other for it
_MAX_TASKS = 20  # tasks, the largest, in which that is looked for: the time grows with all three
_ABSENT = {"unit": 0.5, "place": -1.0}  # what stands for a missing column; elsewhere 0
_FAR = 1.0  # how far outside [0, 1] a chosen value may lie, so that no outlier dominates


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What one column of X means.

    Attributes:
        name: The column's own name, such as `params.model=mlp`.
        source: The frame's column that it is made from.
        kind: `unit` (position on the parameter's scale), `is` (1 where source equals level),
            `set` (1 where source is set), `number` (standardised), `log` (of the logarithm),
            `place` (which of the encoder's tasks it is; -1 for none of them).
        level: For `is`: the value.
        center: For `number` and `log`: what is taken off.
        spread: For `number` and `log`: what it is then divided by.
    """

    name: str
    source: str
    kind: str
    level: str | int | float | bool | None = None
    center: float = 0.0
    spread: float = 1.0


@dataclass(frozen=True, slots=True)
class Encoder:
    """Turns frames of trials into matrices; learned from trials, saved as plain JSON.

    Attributes:
        space: The search space that `unit` columns refer to.
        columns: What every column of X means.
        left_out: Context column -> why it is no feature.
        tasks: What the numbers of a `place` column stand for.
    """

    space: SearchSpace
    columns: tuple[Column, ...]
    left_out: dict[str, str]
    tasks: tuple[str, ...] = ()

    @classmethod
    def learn(cls, trials: pd.DataFrame, space: SearchSpace) -> Encoder:
        """Choose the columns from the space and from what varies in the trials' context."""
        chosen = _chosen_columns(trials, space)
        every, left_out = _context_columns(trials, space)
        given = _best_known(every, trials)
        why = f"is one of {len(every)} context features; the {MAX_GIVEN} best known are kept"
        left_out |= {column.name: why for column in every if column not in given}
        both = cls(space, (*chosen, *given), left_out)
        return both._without_copies(len(chosen), trials)

    @classmethod
    def by_task(cls, trials: pd.DataFrame, space: SearchSpace) -> Encoder:
        """The task's place, then the space alone: for a model that keeps the tasks apart.

        Context says what a task is like; here its own trials do. Whether a parameter was set is
        left out too: a task that never sets it would be far from every configuration to come.
        """
        place = Column(name="task", source="task", kind="place")
        chosen = [column for column in _chosen_columns(trials, space) if column.kind != "set"]
        left_out = {column: "is told by the task" for column in columns_with(trials, *CONTEXT)}
        tasks = tuple(pd.unique(trials["task"].astype(str)))
        return cls(space, (place, *chosen), left_out, tasks)

    def _without_copies(self, n_chosen: int, trials: pd.DataFrame) -> Encoder:
        """Less the context columns that say of `trials` what an earlier one says, or its reverse.

        The feature names of a data set that only one task uses all say no more than the task.
        """
        X = self.encode(trials)
        seen = {X[:, i].tobytes(): self.names[i] for i in range(n_chosen)}
        kept, left_out = list(self.columns[:n_chosen]), dict(self.left_out)
        for i, column in enumerate(self.columns[n_chosen:], start=n_chosen):
            copy_of = seen.get(X[:, i].tobytes()) or seen.get((1.0 - X[:, i]).tobytes())
            if copy_of is None:
                seen[X[:, i].tobytes()] = column.name
                kept.append(column)
            else:
                left_out[column.name] = f"says the same as {copy_of}"
        return Encoder(self.space, tuple(kept), left_out)

    @property
    def names(self) -> list[str]:
        """Names of X's columns."""
        return [column.name for column in self.columns]

    @property
    def groups(self) -> NDArray[np.int64]:
        """For each column of X, the number of the frame's column that it is made from, `(d,)`."""
        sources = {
            source: i for i, source in enumerate(dict.fromkeys(c.source for c in self.columns))
        }
        return np.array([sources[column.source] for column in self.columns], dtype=np.int64)

    def encode(self, frame: pd.DataFrame) -> Matrix:
        """X `(n, d)` for a frame with the columns that `learn` saw; absent ones count as unset."""
        choices: dict[str, NDArray[np.object_]] = {}  # those of a source, once for all its columns
        encoded = [self._encode_column(column, frame, choices) for column in self.columns]
        return np.column_stack(encoded) if encoded else np.zeros((len(frame), 0))

    def encode_values(self, columns: Sequence[int], values: Sequence[ConfigValue | None]) -> Matrix:
        """Some columns of X that are made from one param alone, `(n, columns)`.

        What `encode` gives for a frame of nothing but the param, and many times faster.

        Args:
            columns: Which.
            values: Of the param; None where it is not set.
        """
        numbers = np.array([_number(value) for value in values])
        X = np.empty((len(values), len(columns)))
        for place, column in enumerate(self.columns[j] for j in columns):
            if column.kind == "set":
                X[:, place] = [value is not None for value in values]
            elif column.kind == "is":
                X[:, place] = [same(value, column.level) for value in values]
            else:
                X[:, place] = self._scaled(column, numbers)
        return X

    def _encode_column(
        self, column: Column, frame: pd.DataFrame, choices: dict[str, NDArray[np.object_]]
    ) -> Vector:
        if column.source not in frame:
            return np.full(len(frame), _ABSENT.get(column.kind, 0.0))
        values = frame[column.source]
        if column.kind == "place":
            places = {task: float(i) for i, task in enumerate(self.tasks)}
            return np.array([places.get(str(task), _ABSENT["place"]) for task in values])
        if column.kind == "set":
            return np.asarray(values.notna(), dtype=float)
        if column.kind == "is":
            if column.source not in choices:
                known = values.to_numpy(dtype=object).copy()
                known[values.isna().to_numpy(bool)] = None
                choices[column.source] = known
            return _is(choices[column.source], column.level)
        return self._scaled(column, _numbers(values))

    def _scaled(self, column: Column, numbers: Vector) -> Vector:
        if column.kind == "unit":
            param = self.space.params[column.source.removeprefix("params.")]
            unit = np.clip(param.to_unit(numbers), -_FAR, 1 + _FAR)
            return np.asarray(np.where(np.isfinite(numbers), unit, 0.5))
        if column.kind == "log":
            numbers = np.log(np.maximum(numbers, np.finfo(float).tiny))
        scaled = (numbers - column.center) / column.spread
        return np.asarray(np.where(np.isfinite(scaled), np.clip(scaled, -5.0, 5.0), 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "space": self.space.to_dict(),
            "columns": [asdict(column) for column in self.columns],
            "left_out": self.left_out,
            "tasks": list(self.tasks),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Encoder:
        """Inverse of `to_dict`."""
        columns = tuple(Column(**column) for column in data["columns"])
        space = SearchSpace.from_dict(data["space"])
        return cls(space, columns, data["left_out"], tuple(data["tasks"]))


def _is(values: NDArray[np.object_], level: ConfigValue | None) -> Vector:
    """Where `values (n,)` are `same` as a level, 1.0; a missing one, None, is the same as none."""
    found = np.asarray(values == level, dtype=float)
    if not isinstance(level, str):  # `True`, "True" and 1 are different choices
        found *= [isinstance(value, bool) == isinstance(level, bool) for value in values]
    return found


def consequences(trials: pd.DataFrame, space: SearchSpace) -> dict[str, str]:
    """Context columns that follow from what was chosen: they mediate, and are not given.

    A training script with a param `sample_share` logs data sets of ever other sizes. Taken for
    context, the size would steal the param's credit, and at suggestion time nobody could give it.
    A context column follows from a parameter when, within every task where it varies, it is a
    monotone function of the parameter: sorted by one, the other hardly ever turns back.

    Returns:
        Context column -> the parameter that it follows from.
    """
    found: dict[str, str] = {}
    numeric = [
        name
        for name, param in space.params.items()
        if f"params.{name}" in trials
        and not (isinstance(param, Categorical) and not param.is_ordered)
    ]
    chosen = {name: _numbers(trials[f"params.{name}"]) for name in numeric}
    by_task = trials.groupby("task", sort=False).indices.values()
    groups = sorted((np.asarray(rows) for rows in by_task), key=len, reverse=True)[:_MAX_TASKS]
    for column in columns_with(trials, *CONTEXT):
        given = _numbers(trials[column])
        for name, numbers in chosen.items():
            verdicts = []
            for rows in groups:
                verdicts.append(_follows(given[rows], numbers[rows]))
                if verdicts[-1] is False:
                    break  # mostly in the first task already, which saves the time for the others
            if True in verdicts and False not in verdicts:
                found[column] = name
                break
    return found


def _follows(given: Vector, chosen: Vector) -> bool | None:
    """Whether `given` hardly ever turns back when sorted by `chosen`; None if it never varies.

    Measured by Goodman and Kruskal's gamma: of the pairs that differ in both, how many more go the
    same way than the other, or the reverse.
    """
    both = np.isfinite(given) & np.isfinite(chosen)
    given, chosen = given[both], chosen[both]
    if len(np.unique(given)) < 2:
        return None
    if len(np.unique(chosen)) < 4 or len(given) < 6:
        return False
    given, chosen = given[:_MAX_COMPARED], chosen[:_MAX_COMPARED]
    agree = np.sign(given[:, None] - given) * np.sign(chosen[:, None] - chosen)
    decided = np.abs(agree).sum()
    return bool(decided > 0 and abs(agree.sum()) >= _MONOTONE * decided)


def _chosen_columns(trials: pd.DataFrame, space: SearchSpace) -> list[Column]:
    columns: list[Column] = []
    for name, param in space.params.items():
        source = f"params.{name}"
        if isinstance(param, Categorical) and not param.is_ordered:
            columns += [
                Column(name=f"{source}={level}", source=source, kind="is", level=level)
                for level in param.choices
            ]
            continue
        columns.append(Column(name=source, source=source, kind="unit"))
        if not param.when and source in trials and trials[source].isna().any():
            columns.append(Column(name=f"{source} is set", source=source, kind="set"))
    return columns


def _context_columns(
    trials: pd.DataFrame, space: SearchSpace
) -> tuple[list[Column], dict[str, str]]:
    columns: list[Column] = []
    left_out: dict[str, str] = {}
    mediators = consequences(trials, space)
    for source in ["task", *columns_with(trials, *CONTEXT)]:
        values = trials[source]
        distinct = values.nunique(dropna=True)
        if source in mediators:
            left_out[source] = f"follows from the param {mediators[source]}"
        elif distinct + values.isna().any() < 2:
            left_out[source] = "is always the same"
        elif pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            columns.append(_number_column(source, _numbers(values)))
        elif source != "task" and distinct > MAX_LEVELS:
            left_out[source] = f"has {distinct} different texts"
        else:
            columns += _level_columns(source, values)
    return columns, left_out


def _best_known(columns: list[Column], trials: pd.DataFrame) -> list[Column]:
    """At most `MAX_GIVEN` of the columns: tasks first, then those whose source most trials have."""
    if len(columns) <= MAX_GIVEN:
        return columns
    known = {source: int(trials[source].notna().sum()) for source in {c.source for c in columns}}
    ranked = sorted(columns, key=lambda column: (column.source != "task", -known[column.source]))
    kept = {column.name for column in ranked[:MAX_GIVEN]}
    return [column for column in columns if column.name in kept]


def _number_column(source: str, numbers: Vector) -> Column:
    numbers = numbers[np.isfinite(numbers)]
    log = bool(numbers.min() > 0 and numbers.max() / numbers.min() >= _DECADES)
    scaled = np.log(numbers) if log else numbers
    return Column(
        name=f"log {source}" if log else source,
        source=source,
        kind="log" if log else "number",
        center=float(scaled.mean()),
        spread=float(scaled.std()) or 1.0,
    )


def _level_columns(source: str, values: pd.Series) -> list[Column]:
    counts = values.astype(object).value_counts()
    levels: Sequence[Any] = sorted(
        (level for level, count in counts.items() if count >= MIN_SUPPORT), key=str
    )
    if pd.api.types.is_bool_dtype(values):
        levels = [True]  # its opposite would say the same again
    return [
        Column(name=f"{source}={level}", source=source, kind="is", level=level) for level in levels
    ]


def _number(value: ConfigValue | None) -> float:
    """A value as `_numbers` takes it."""
    try:
        return np.nan if value is None else float(value)
    except ValueError:
        return np.nan


def _numbers(values: pd.Series) -> Vector:
    """A column as floats; texts and missing values become NaN."""
    if pd.api.types.is_numeric_dtype(values):
        return values.to_numpy(dtype=float, na_value=np.nan)
    return np.asarray(pd.to_numeric(values.astype(object), errors="coerce"), dtype=float)
