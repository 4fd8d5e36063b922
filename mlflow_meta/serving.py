"""The registered model, as code: what `mlflow models serve` runs.

Input: rows of raw params, one column a param, as numbers or as the texts that MLflow keeps. Any
column may be missing, and MLflow ignores those that are not in the signature; `task` says which
task's units the answer is in. Output: the columns of
`served.answers.COLUMNS` for each row, in the metric's own units.

Params:
    k         ask for so many suggestions instead; 0 for answers. The params that the row has are
              fixed values, which all suggestions have
    task      whose suggestions; empty for the task of the row, or else the usual one
    search_s  seconds of the search
    seed      of its random numbers; equal ones give equal suggestions
    reasons   whether to tell reasons, which is most of the work in large batches
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from mlflow_meta.errors import MetaError
from mlflow_meta.served import seal
from mlflow_meta.served.answers import Answers
from mlflow_meta.served.memory import Memory
from mlflow_meta.served.packed import unpack


class ServedMetaModel(PythonModel):
    """Answers with what is expected of each row of raw params, or with suggestions."""

    def load_context(self, context: PythonModelContext) -> None:
        """Check and read the model's files; MLflow calls this once, before the first prediction.

        Raises:
            Damaged: If a file of the model's folder is not what was registered.
        """
        folder = Path(context.artifacts["meta_model"])
        found = seal.folder(folder.parent.parent)
        listed = found.pop(seal.SEAL, None)
        seal.check(found, listed)
        files = seal.data_of(found)
        self._packed = unpack(files)
        self._memory = Memory.load(files)
        self._answers = Answers(self._packed, self._memory)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """See the module.

        Raises:
            MlflowException: If what is asked makes no sense; served, that is a status of 400.
        """
        del context
        is_frame = isinstance(model_input, pd.DataFrame)  # mostly, and a copy takes its time
        frame, asked = model_input if is_frame else pd.DataFrame(model_input), params or {}
        try:
            if asked.get("k", 0):
                return self._suggestions(frame, asked)
            if frame.columns.empty:  # MLflow leaves out columns that it does not know
                raise ValueError(f"No row has a column that is known: {self._known()}.")
            return self._answers.of(frame, with_reasons=bool(asked.get("reasons", True)))
        except (MetaError, ValueError) as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _suggestions(self, frame: pd.DataFrame, asked: dict[str, Any]) -> pd.DataFrame:
        from mlflow_meta.served.suggestions import suggest  # brings the whole search along

        if len(frame) > 1:
            raise ValueError(
                f"With k, a single row says which task and which fixed values the suggestions are "
                f"for, but there are {len(frame)}. Ask for one row at a time."
            )
        fixed = {str(name): frame[name].iloc[0] for name in frame} if len(frame) else {}
        first = fixed.pop("task", None)
        usual = self._memory.usual_task if pd.isna(first) else str(first)
        return suggest(
            self._packed,
            self._memory,
            self._answers,
            task=str(asked.get("task") or usual),
            k=int(asked["k"]),
            search_s=float(asked.get("search_s", 10.0)),
            seed=int(asked.get("seed", 0)),
            fixed=fixed,
        )

    def _known(self) -> str:
        """Some of the columns that are."""
        names = self._packed.model.encoder.space.names
        return ", ".join(["task", *names[:10]]) + (", ..." if len(names) > 10 else "")


mlflow.models.set_model(ServedMetaModel())
