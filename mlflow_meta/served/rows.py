"""Rows as callers send them -> values by column, and what of them could not be used.

A value is read by what its column means to the model, never by the other rows: a number may come
as a number or as the text that MLflow keeps, and so may a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.columns import CONTEXT, UNSET, number_of
from mlflow_meta.features import Encoder
from mlflow_meta.served.memory import Memory
from mlflow_meta.subsets import list_of, unfolded
from mlflow_meta.trials import ConfigValue

Matrix = NDArray[np.float64]
Values = list[ConfigValue | None]

MAX_SHOWN = 40  # characters of a text that are repeated to whoever sent it
_TASK = "task"


@dataclass(slots=True)
class Rows:
    """What is asked about.

    Attributes:
        n: How many rows.
        tasks: `n`, each row's task, be it known or not.
        columns: Column of a frame of trials, such as `params.lr` -> `n` values, None where unset.
        notes: `n`, what is to be said of each row.
        strange: `(n,)` which rows ask about what was never seen.
    """

    n: int
    tasks: list[str]
    columns: dict[str, Values]
    notes: list[list[str]]
    strange: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.strange = np.zeros(self.n, dtype=bool)


def column_of(name: str) -> str:
    """The column of a frame of trials that a caller means by a name: params need no prefix."""
    return name if name == _TASK or name.startswith((*CONTEXT, "params.")) else f"params.{name}"


def name_of(column: str) -> str:
    """Inverse of `column_of`: the shortest name that means a column."""
    short = column.removeprefix("params.")
    return short if column_of(short) == column else column


def is_set(value: object) -> bool:
    """Whether a value says anything."""
    return not _is_missing(value) and str(value) not in UNSET


def short(value: object) -> str:
    """A value as it is shown: five digits, and the beginning of a text, on one line."""
    if isinstance(value, float):
        return f"{value:.5g}"
    text = "".join(c if c.isprintable() else " " for c in str(value)[: MAX_SHOWN + 1])
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


class Reader:
    """Reads rows for some encoders, and fills in what is given for a known task."""

    def __init__(self, encoders: Iterable[Encoder], memory: Memory) -> None:
        """Takes the encoders that will be asked to encode what was read."""
        self._memory = memory
        self._levels: dict[str, dict[str, ConfigValue]] = {}
        for column in (column for encoder in encoders for column in encoder.columns):
            levels = self._levels.setdefault(column.source, {})
            if column.kind == "is" and column.level is not None:
                levels[str(column.level)] = column.level
                if column.level is True:  # of flags, one column says both
                    levels["False"] = False
        self._levels.pop(_TASK, None)
        names = [source.removeprefix("params.") for source in self._levels]
        self._flags = {name: param for name in names if (param := list_of(name))}
        self._context = [source for source in self._levels if not source.startswith("params.")]

    def read(self, frame: pd.DataFrame) -> Rows:
        """The rows of `frame`, whose columns are named as `column_of` reads them.

        Raises:
            ValueError: If a column is given twice.
        """
        n = len(frame)
        given = {column_of(str(name)): i for i, name in enumerate(frame.columns)}
        if len(given) < len(frame.columns):
            twice = [str(name) for i, name in enumerate(frame.columns) if i not in given.values()]
            raise ValueError(f"Each column may be given once, but {twice[:5]} are given twice.")
        if self._flags:
            frame = self._with_flags(frame, given)
            given = {column_of(str(name)): i for i, name in enumerate(frame.columns)}
        notes: list[list[str]] = [[] for _ in range(n)]
        values = frame.to_numpy(dtype=object).T.tolist()  # at once: a column at a time is slow
        asked = values[given[_TASK]] if _TASK in given else [None] * n
        rows = Rows(n=n, tasks=self._tasks(asked, notes), columns={}, notes=notes)
        rows.strange[:] = [task not in self._memory.references for task in rows.tasks]
        for source, levels in self._levels.items():
            if source in given:
                read = _reading(levels)
                rows.columns[source] = [
                    self._one(read, value, source, rows, i)
                    for i, value in enumerate(values[given[source]])
                ]
        self._fill_in(rows)
        return rows

    def _with_flags(self, frame: pd.DataFrame, given: Mapping[str, int]) -> pd.DataFrame:
        """`frame` with a column for each item of a param that lists some, such as `features`."""
        added: dict[str, list[object]] = {}
        for flag, param in self._flags.items():
            place = given.get(f"params.{param}")
            if place is not None and f"params.{flag}" not in given:
                texts = frame.iloc[:, place]
                added[f"params.{flag}"] = [
                    None if _is_missing(text) else unfolded({param: text}, [flag]).get(flag)
                    for text in texts
                ]
        return pd.concat([frame, pd.DataFrame(added, frame.index, dtype=object)], axis=1)

    def _tasks(self, asked: Sequence[object], notes: list[list[str]]) -> list[str]:
        tasks = []
        usual = self._memory.usual_task
        for value, said in zip(asked, notes, strict=True):
            if _is_missing(value):
                if len(self._memory.references) > 1:
                    said.append(f"no task is given: answered for {short(usual)!r}")
                tasks.append(usual)
                continue
            tasks.append(str(value))
            if tasks[-1] not in self._memory.references:
                said.append(f"no trial of the task {short(tasks[-1])!r} is known")
        return tasks

    def _one(
        self,
        read: Callable[[object], tuple[ConfigValue | None, str]],
        value: object,
        source: str,
        rows: Rows,
        row: int,
    ) -> ConfigValue | None:
        known, why = read(value)
        if why:
            rows.notes[row].append(f"{name_of(source)} = {short(value)} {why}")
            rows.strange[row] = True
        return known

    def _fill_in(self, rows: Rows) -> None:
        """What a row does not say of its context is what is given for its task."""
        known = self._memory.references
        for source in self._context:
            values = rows.columns.get(source) or [None] * rows.n
            rows.columns[source] = [
                known[task].context.get(source) if value is None and task in known else value
                for value, task in zip(values, rows.tasks, strict=True)
            ]


def _is_missing(value: object) -> bool:
    return (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, float) and value != value)
    )


def _reading(
    levels: Mapping[str, ConfigValue],
) -> Callable[[object], tuple[ConfigValue | None, str]]:
    """What reads a value: of the choices `levels`, by their text, or of numbers where none is."""
    return (lambda value: _choice(value, levels)) if levels else _number


def _number(value: object) -> tuple[float | None, str]:
    """The number, None where it is not set; and what is wrong."""
    if _is_missing(value):
        return None, ""
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = np.inf
        if np.isfinite(number):
            return number, ""
        return (None, "") if np.isnan(number) else (None, "is not finite")
    text = str(value)
    if text in UNSET:
        return None, ""
    found = number_of(text) if len(text) <= MAX_SHOWN else None
    return (float(found), "") if found is not None else (None, "is no number")


def _choice(value: object, levels: Mapping[str, ConfigValue]) -> tuple[ConfigValue | None, str]:
    """The choice that was seen, or the text; None where it is not set; and what is wrong."""
    if _is_missing(value):
        return None, ""
    texts = [str(value)]
    if isinstance(value, float) and value.is_integer():
        texts.append(str(int(value)))  # pandas makes 64 into 64.0 where another row has none
    texts.append(texts[0].capitalize())  # JSON's true is Python's True
    for text in texts:
        if text in levels:
            return levels[text], ""
    return (None, "") if texts[0] in UNSET else (texts[0], "is unknown")


class Encoding:
    """An encoder that is asked about few rows at a time: without a frame it is far faster."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._blank = encoder.encode(pd.DataFrame(index=[0]))[0]
        self._columns: dict[str, list[int]] = {}
        for i, column in enumerate(encoder.columns):
            self._columns.setdefault(column.source, []).append(i)
        self._places = {task: float(i) for i, task in enumerate(encoder.tasks)}

    def of(self, rows: Rows) -> Matrix:
        """X `(n, d)`, as `Encoder.encode` makes it."""
        X = np.tile(self._blank, (rows.n, 1))
        for source, columns in self._columns.items():
            if source == _TASK:
                X[:, columns] = self._of_tasks(columns, rows.tasks)
            elif source in rows.columns:
                X[:, columns] = self.encoder.encode_values(columns, rows.columns[source])
        return X

    def _of_tasks(self, columns: Sequence[int], tasks: Sequence[str]) -> Matrix:
        if self.encoder.columns[columns[0]].kind == "place":
            return np.array([self._places.get(task, -1.0) for task in tasks]).reshape(-1, 1)
        return self.encoder.encode_values(columns, tasks)


class Part:
    """An encoder whose columns are, but for some, those of another, which has been asked before."""

    def __init__(self, encoder: Encoder, other: Encoder) -> None:
        places = {column: i for i, column in enumerate(other.columns)}
        self._n = len(encoder.columns)
        self._shared = [i for i, column in enumerate(encoder.columns) if column in places]
        self._there = [places[encoder.columns[i]] for i in self._shared]
        self._own = [i for i, column in enumerate(encoder.columns) if column not in places]
        own = tuple(encoder.columns[i] for i in self._own)
        self._rest = Encoding(replace(encoder, columns=own))

    def of(self, rows: Rows, X: Matrix) -> Matrix:
        """X `(n, d)` of the encoder, for rows of which the other has made `X (n, d of it)`."""
        made = np.empty((rows.n, self._n))
        made[:, self._shared] = X[:, self._there]
        made[:, self._own] = self._rest.of(rows)
        return made
