"""What a registered model answers: a row of numbers and texts for each configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from mlflow_meta.served.memory import Memory
from mlflow_meta.served.packed import Packed
from mlflow_meta.served.predictor import Predicted, Predictor
from mlflow_meta.served.reasons import Reasons
from mlflow_meta.served.rows import Encoding, Part, Reader, Rows, name_of, short
from mlflow_meta.space import Categorical
from mlflow_meta.space.params import is_active
from mlflow_meta.trials import ConfigValue

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

COLUMNS = {
    "prediction": "double",
    "std": "double",
    "low_80": "double",
    "high_80": "double",
    "low_90": "double",
    "high_90": "double",
    "best_known": "double",
    "chance_to_beat_best": "double",
    "duration_s": "double",
    "distance": "double",
    "extrapolates": "boolean",
    "warning": "string",
    "reasons": "string",
}
"""What is answered, with MLflow's types.

prediction, std           the expected metric, and half the width of its central 68%
low_80 ... high_90        the ends of the intervals that cover 80% and 90%
best_known                the best metric of the row's task so far; null for a task without trials
chance_to_beat_best       probability of a better one, 0 to 1; null for a task without trials
duration_s                seconds that the training takes; null where no run says how long it took
distance                  how far from all that was tried, 0 to 1, see `Nearness.distance`
extrapolates              whether the row is far from all that was tried, or says what never was
warning                   what is odd about the row, as sentences; empty where nothing is
reasons                   which params move the prediction most, see `reasons`
"""

FAR = 0.99  # a distance beyond which a prediction is an extrapolation
_ROWS_AT_ONCE = 250  # so that memory does not grow with what is asked at once
_OUTSIDE = 1e-6  # how far outside its range a number is still at its end


class Told(pd.DataFrame):
    """A frame whose records are made fast: a server makes them of every answer.

    For one row pandas needs as long as the prediction takes.
    """

    def to_dict(self, orient: str = "dict", **options: Any) -> Any:
        """As pandas has it."""
        if orient != "records" or options:
            return super().to_dict(orient, **options)
        names = self.columns.tolist()
        return [dict(zip(names, row, strict=True)) for row in self.to_numpy(dtype=object).tolist()]


class Answers:
    """Answers rows of raw params."""

    def __init__(self, packed: Packed, memory: Memory) -> None:
        """Takes a meta-model and what it knows besides."""
        self._sign = packed.objective.direction.sign
        model, self._memory = packed.model, memory
        self._space = memory.encoder.space
        self._reader = Reader([model.encoder, memory.encoder], memory)
        self._encoding = Encoding(model.encoder)
        self._seen = Part(memory.encoder, model.encoder)
        self._threads = ThreadpoolController()
        self._predictor = Predictor(model)
        self._reasons = Reasons(self._encoding, memory, model.encoder.space, self._sign)
        self._always = () if model.has_signal else (_NO_SIGNAL,)
        self._units = [
            (i, column.source)
            for i, column in enumerate(memory.encoder.columns)
            if column.kind == "unit"
        ]

    def of(self, frame: pd.DataFrame, *, with_reasons: bool = True) -> pd.DataFrame:
        """`COLUMNS` for each row of `frame`, in the metric's own units; null is None.

        Args:
            frame: As `rows.Reader` reads it. May be empty.
            with_reasons: Whether to tell reasons, which is most of the work; else they are empty.

        Raises:
            ValueError: If a column is given twice.
        """
        # One thread: on rows this few, more of them only wait for each other.
        with self._threads.limit(limits=1):
            if len(frame) <= _ROWS_AT_ONCE:
                return Told(self._part(frame, with_reasons), index=frame.index, copy=False)
            parts = [
                self._part(frame.iloc[i : i + _ROWS_AT_ONCE], with_reasons)
                for i in range(0, len(frame), _ROWS_AT_ONCE)
            ]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
        return Told(columns, index=frame.index)

    def _part(self, frame: pd.DataFrame, with_reasons: bool) -> dict[str, NDArray[np.generic]]:
        rows = self._reader.read(frame)
        X = self._encoding.of(rows)
        seen = self._seen.of(rows, X)
        if with_reasons:
            asked = self._reasons.questions(rows, X)
            both = self._predictor.predict_and_means(X, rows.tasks, asked.X, asked.tasks)
            predicted, reasons = both[0], self._reasons.of(rows, asked, both[0].mean, both[1])
        else:
            predicted, reasons = self._predictor.predict(X, rows.tasks), [""] * rows.n
        distance = self._memory.nearness.distance(seen)
        extrapolates = self._warn(rows, seen, distance)
        return {
            **self._in_units(predicted),
            "duration_s": _or_none(self._memory.duration.seconds(seen)),
            "distance": distance,
            "extrapolates": extrapolates,
            "warning": _texts(["; ".join([*self._always, *said]) for said in rows.notes]),
            "reasons": _texts(reasons),
        }

    def _in_units(self, it: Predicted) -> dict[str, NDArray[np.generic]]:
        """Values, which are minimised, as the metric."""
        sign = self._sign
        ends = {
            "low_80": sign * it.low_80,
            "high_80": sign * it.high_80,
            "low_90": sign * it.low_90,
            "high_90": sign * it.high_90,
        }
        if sign < 0:  # the lowest value is the highest metric
            other = {"low_80": "high_80", "low_90": "high_90"}
            other |= {high: low for low, high in other.items()}
            ends = {name: ends[other[name]] for name in ends}
        return {
            "prediction": sign * it.mean,
            "std": it.std,
            **ends,
            "best_known": _or_none(sign * it.best),
            "chance_to_beat_best": _or_none(it.chance),
        }

    def _warn(self, rows: Rows, seen: Matrix, distance: Vector) -> NDArray[np.bool_]:
        """Note what is odd; which rows extrapolate, `(n,)`."""
        for place, source in self._units:
            unit = seen[:, place]
            for i in np.flatnonzero((unit < -_OUTSIDE) | (unit > 1 + _OUTSIDE)).tolist():
                said = f"{name_of(source)} = {short(rows.columns[source][i])} is outside "
                rows.notes[i].append(said + self._range(source))
                rows.strange[i] = True
        for i in np.flatnonzero(distance > FAR).tolist():
            rows.notes[i].append("far from all that was tried")
        for i, absent in enumerate(self._absent(rows)):
            if absent:
                rows.notes[i].append(f"not given: {_listed(absent)}")
        return np.asarray(rows.strange | (distance > FAR))

    def _range(self, source: str) -> str:
        param = self._space.params[source.removeprefix("params.")]
        if isinstance(param, Categorical):
            return f"{short(param.choices[0])} to {short(param.choices[-1])}"
        return f"{short(param.low)} to {short(param.high)}"

    def _absent(self, rows: Rows) -> list[list[str]]:
        """The params that each row should have under its own choices, and does not."""
        params = self._space.params
        absent: list[list[str]] = [[] for _ in range(rows.n)]
        for name, param in params.items():
            values = rows.columns.get(f"params.{name}")
            for i in range(rows.n):
                if values is not None and values[i] is not None:
                    continue
                above = {parent: _at(rows, parent, i) for parent in param.when}
                if is_active(param.when, {k: v for k, v in above.items() if v is not None}):
                    absent[i].append(name)
        return absent


_NO_SIGNAL = "the model could not tell good from bad on trials that it had not seen"


def _at(rows: Rows, name: str, row: int) -> ConfigValue | None:
    values = rows.columns.get(f"params.{name}")
    return values[row] if values is not None else None


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" (+{len(names) - 5} more)" if len(names) > 5 else "")


def _or_none(values: Vector) -> NDArray[np.generic]:
    """`values`, with None for nan: MLflow writes nan as NaN, which is no JSON."""
    if not (missing := np.isnan(values)).any():
        return values
    known = values.astype(object)
    known[missing] = None
    return known


def _texts(texts: list[str]) -> NDArray[np.object_]:
    return np.array(texts, dtype=object)
