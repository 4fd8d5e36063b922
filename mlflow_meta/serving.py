"""The registered model, as code: what `mlflow models serve` runs.

Input: rows of raw params, one column a param, as numbers or as the texts that MLflow keeps. Any
column may be missing; `task` says which task's units the answer is in. Output: `prediction`, `std`,
and `low` and `high` of the 80% interval, in the metric's own units.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from mlflow_meta.columns import CONTEXT, type_column
from mlflow_meta.store.registry import unpack


class ServedMetaModel(PythonModel):
    """Answers with the predicted metric of each row of raw params."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the model's files; MLflow calls this once, before the first prediction."""
        folder = Path(context.artifacts["meta_model"])
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        packed = unpack(files)
        self._model, self._objective = packed.model, packed.objective

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """`prediction`, `std`, `low`, `high` for each row."""
        del context, params
        rows = pd.DataFrame(model_input)
        frame = pd.DataFrame({_column(str(n)): self._typed(str(n), rows[n]) for n in rows})
        given = frame["task"] if "task" in frame else pd.Series(index=frame.index, dtype=object)
        frame["task"] = given.astype(object).where(given.notna(), self._usual_task())
        predicted = self._model.predict(frame)
        low, high = self._model.interval(frame, 0.8)
        if (sign := self._objective.direction.sign) < 0:
            low, high = high, low
        return pd.DataFrame(
            {
                "prediction": sign * predicted.mean,
                "std": predicted.std,
                "low": sign * low,
                "high": sign * high,
            }
        )

    def _usual_task(self) -> str:
        """The task with the most trials, which speaks for a row that names none."""
        scales = self._model.scales
        return str(max(scales, key=lambda task: len(scales[task].values)))

    def _typed(self, name: str, values: pd.Series) -> pd.Series:
        """As MLflow would have kept the values, and the harvest would have read them."""
        texts = [None if pd.isna(value) else str(value) for value in values]
        columns = self._model.encoder.columns
        levels = [c.level for c in columns if c.source == _column(name) and c.kind == "is"]
        if any(isinstance(level, str) for level in levels):
            return pd.Series(texts, index=values.index, dtype="string")
        return type_column(texts).set_axis(values.index)


def _column(name: str) -> str:
    return name if name == "task" or name.startswith((*CONTEXT, "params.")) else f"params.{name}"


mlflow.models.set_model(ServedMetaModel())
