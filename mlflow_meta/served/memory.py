"""What a registered model knows besides its meta-model: what was seen, how long it took, how near.

X:      `(n, d)`, as `Memory.encoder` makes it: params, context, and a column for each task
Z:      `(m, p)`, the params' columns of X; two choices of a categorical param are 1 apart, and so
        are the ends of a number's scale
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.features import Encoder
from mlflow_meta.models.forms import Additive
from mlflow_meta.trials import ConfigValue

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

TRIALS_FILE = "trials.parquet"
_NOTES, _ARRAYS = "memory.json", "memory.npz"
_SAME = 1e-6  # by which two distances must differ to be different


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The best known trial of a task.

    Attributes:
        config: Its params, of those in the search space.
        context: What is given for the task: columns such as `dataset.rows`.
    """

    config: Mapping[str, ConfigValue]
    context: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """How long a training takes: a sum over X on the logarithm of the seconds.

    Attributes:
        log_seconds: Of X; its constant is nan where no duration is known.
        shortest: Seconds; nothing shorter is said.
        longest: Seconds; nothing longer is said.
    """

    log_seconds: Additive
    shortest: float
    longest: float

    def seconds(self, X: Matrix) -> Vector:
        """The predicted median `(n,)`; nan where no duration is known."""
        said = np.clip(self.log_seconds.at(X), np.log(self.shortest), np.log(self.longest))
        return np.asarray(np.exp(said))


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearness:
    """How far configurations are from those that were tried.

    Attributes:
        columns: `(p,)` which columns of X are of params.
        weights: `(p,)` what they are multiplied with.
        tried: `(m, p)` the Z of configurations that were tried, all different.
        apart: `(m,)` how far each of these is from the nearest other one, rising.
    """

    columns: NDArray[np.int64]
    weights: Vector
    tried: Matrix
    apart: Vector

    def distance(self, X: Matrix) -> Vector:
        """Which share of the tried configurations is nearer to its nearest than X is, `(n,)`.

        0 is as near as any, also for what was tried itself; 1 is farther than all. Of one single
        configuration that was tried, everything else is at 1.
        """
        away = nearest(X[:, self.columns] * self.weights, self.tried)
        # On a grid all are equally far apart, rounding apart: the next one is no farther.
        return np.asarray(np.searchsorted(self.apart, away - _SAME, side="left") / len(self.apart))


def nearest(Z: Matrix, others: Matrix) -> Vector:
    """Distance `(n,)` of each row of `Z (n, p)` to the nearest of `others (m, p)`."""
    squared = (Z**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * Z @ others.T
    return np.asarray(np.sqrt(np.maximum(squared.min(axis=1), 0.0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What was seen.

    Attributes:
        encoder: Makes X.
        references: Task -> its best known trial.
        usual_task: The task with the most trials, which speaks for a row that names none.
        duration: How long trainings took.
        nearness: How far configurations are from what was tried.
        trials: What the meta-model was trained on, as a parquet file.
    """

    encoder: Encoder
    references: Mapping[str, Reference]
    usual_task: str
    duration: Duration
    nearness: Nearness
    trials: bytes

    def save(self) -> dict[str, bytes]:
        """As file name -> content."""
        notes = {
            "encoder": self.encoder.to_dict(),
            "references": {task: asdict(best) for task, best in self.references.items()},
            "usual_task": self.usual_task,
        }
        form, near = self.duration.log_seconds, self.nearness
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            duration=[form.constant, self.duration.shortest, self.duration.longest],
            linear=form.linear,
            square=form.square,
            columns=near.columns,
            weights=near.weights,
            tried=near.tried,
            apart=near.apart,
        )
        return {
            _NOTES: json.dumps(notes, indent=1).encode(),
            _ARRAYS: buffer.getvalue(),
            TRIALS_FILE: self.trials,
        }

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Memory:
        """Inverse of `save`."""
        notes = json.loads(files[_NOTES])
        with np.load(io.BytesIO(files[_ARRAYS]), allow_pickle=False) as state:
            constant, shortest, longest = state["duration"].tolist()
            form = Additive(constant=constant, linear=state["linear"], square=state["square"])
            near = Nearness(
                columns=state["columns"],
                weights=state["weights"],
                tried=state["tried"],
                apart=state["apart"],
            )
        return cls(
            encoder=Encoder.from_dict(notes["encoder"]),
            references={task: Reference(**best) for task, best in notes["references"].items()},
            usual_task=notes["usual_task"],
            duration=Duration(log_seconds=form, shortest=shortest, longest=longest),
            nearness=near,
            trials=files[TRIALS_FILE],
        )
