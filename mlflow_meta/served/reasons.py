"""Why a row is predicted as it is: which of its params move the prediction most.

A row is held against the best known trial of its task. Of each param in which the two differ, the
reason is what the prediction changes where the row takes the best trial's value instead:

    effect = f(row) - f(row with the param of the best trial)

A param moves along with those that exist only under its choices, which have no reason of their own
where it differs. Interactions are not told apart; equal questions have equal answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.served.memory import Memory
from mlflow_meta.served.rows import Encoding, Rows, Values, short
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import ConfigValue

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

N_TOLD = 3  # reasons of a row
_LEAST = 0.02  # of the largest effect, below which an effect is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Rows in which one param is that of the best known trial.

    Attributes:
        against: `n`, the task whose best known trial each row is held against.
        at: `(m,)`, of which row it is.
        of: `(m,)`, which param.
        X: `(m, d)`, it encoded.
        tasks: `m`, its task.
    """

    against: list[str]
    at: NDArray[np.int64]
    of: NDArray[np.int64]
    X: Matrix
    tasks: list[str]


class Reasons:
    """Tells reasons."""

    def __init__(
        self,
        encoding: Encoding,
        memory: Memory,
        space: SearchSpace,
        sign: int,
    ) -> None:
        """Takes what encodes rows; `sign * value` is the metric."""
        self._encoding, self._memory = encoding, memory
        self._sign = sign
        columns = encoding.encoder.columns
        self._names = [
            name for name in space.names if any(c.source == f"params.{name}" for c in columns)
        ]
        own, moved, above = [], [], []
        for name in self._names:
            with_it = {f"params.{name}", *(f"params.{n}" for n in _below(space, name))}
            own.append([c.source == f"params.{name}" for c in columns])
            moved.append([c.source in with_it for c in columns])
            above.append([name in _below(space, other) for other in self._names])
        self._own, self._moved = np.array(own, dtype=bool), np.array(moved, dtype=bool)
        self._above = np.array(above, dtype=bool)
        self._known: dict[str, Vector] = {}

    def questions(self, rows: Rows, X: Matrix) -> Questions:
        """What the model must be asked besides, of rows that are encoded as `X (n, d)`."""
        known = self._memory.references
        against = [task if task in known else self._memory.usual_task for task in rows.tasks]
        best = np.stack([self._best(task) for task in against]) if rows.n else X
        differs = (best != X).astype(float) @ self._own.T.astype(float) > 0
        told = differs & ~(differs.astype(float) @ self._above.T.astype(float) > 0)
        at, of = np.nonzero(told)
        return Questions(
            against=against,
            at=at,
            of=of,
            X=np.where(self._moved[of], best[at], X[at]),
            tasks=[rows.tasks[i] for i in at.tolist()],
        )

    def of(self, rows: Rows, asked: Questions, means: Vector, moved: Vector) -> list[str]:
        """One sentence a row.

        Args:
            rows: What was asked.
            asked: What the model was asked besides.
            means: `(n,)`, the values that were predicted for the rows.
            moved: `(m,)`, those for what it was asked besides.
        """
        effects = (means[asked.at] - moved).tolist()
        by_row: list[list[tuple[float, int]]] = [[] for _ in range(rows.n)]
        for row, param, effect in zip(asked.at.tolist(), asked.of.tolist(), effects, strict=True):
            by_row[row].append((effect, param))
        return [self._said(rows, i, asked.against[i], found) for i, found in enumerate(by_row)]

    def _best(self, task: str) -> Vector:
        """The best known trial of a task, encoded, `(d,)`."""
        if task not in self._known:
            config = self._memory.references[task].config
            columns: dict[str, Values] = {f"params.{name}": [v] for name, v in config.items()}
            row = Rows(n=1, tasks=[task], columns=columns, notes=[[]])
            self._known[task] = self._encoding.of(row)[0]
        return self._known[task]

    def _said(self, rows: Rows, row: int, against: str, found: list[tuple[float, int]]) -> str:
        whose = "" if rows.tasks[row] == against else f" of {short(against)!r}"
        if not found:
            return f"the params are those of the best known trial{whose}"
        most = max(abs(effect) for effect, _ in found)
        largest = sorted(found, key=lambda one: (-abs(one[0]), one[1]))[:N_TOLD]
        config = self._memory.references[against].config
        parts = []
        for effect, param in largest:
            if most > 0 and abs(effect) >= _LEAST * most:
                name = self._names[param]
                given = rows.columns.get(f"params.{name}")
                here, best = given[row] if given else None, config.get(name)
                parts.append(
                    f"{name} = {_shown(here)} instead of {_shown(best)}: {self._sign * effect:+.3g}"
                )
        if not parts:
            return f"no param moves the prediction away from the best known trial's{whose}"
        return f"against the best known trial{whose}: {'; '.join(parts)}"


def _below(space: SearchSpace, name: str) -> set[str]:
    """The params that exist only under some choices of a param, at any depth."""
    found: set[str] = set()
    for other, param in space.params.items():  # parents come first
        if found.union([name]) & set(param.when):
            found.add(other)
    return found


def _shown(value: ConfigValue | None) -> str:
    return "not set" if value is None else short(value)
