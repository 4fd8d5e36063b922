"""A meta-model as MLflow keeps models: a folder that can be served, and what a person reads of it.

The model is code (`serving.py`) beside plain data files, and brings along what it needs of this
package, so that it can be served where mlflow-meta is not installed. All of it is sealed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec
from mlflow.types.schema import AnyType, ColSpec, DataType, Schema

from mlflow_meta.served import seal
from mlflow_meta.served.answers import COLUMNS
from mlflow_meta.served.packed import Packed, pack
from mlflow_meta.served.remember import remember
from mlflow_meta.served.rows import name_of
from mlflow_meta.store import names
from mlflow_meta.trials import Direction

FILES = PurePosixPath(seal.DATA).name
_PACKAGE = Path(__file__).parent.parent
_UNSERVED = (
    "backtest", "cli", "demo", "execution", "explain", "loop", "mcp", "optuna", "outlook", "pages",
    "services", "store", "testing",
)  # fmt: skip
"""Parts of the package that a served model never imports: each file is a request to the server."""
_REQUIREMENTS = (
    "lightgbm",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
    "pyyaml",
    "scikit-learn",
    "scipy",
    "threadpoolctl",
)
PARAMS = {"k": 0, "task": "", "search_s": 10.0, "seed": 0, "reasons": True}
"""What may be asked for beside the rows, with its default; see `serving`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servable:
    """What becomes a version of a registered model.

    Attributes:
        files: As `served.packed.pack` gives them.
        example: Rows of raw params, for the signature and the input example.
        tags: What the version is tagged with: how good it is, as text.
        description: The same for people, in Markdown.
    """

    files: Mapping[str, bytes]
    example: pd.DataFrame
    tags: Mapping[str, str]
    description: str


def servable(
    packed: Packed, trials: pd.DataFrame, *, rmse_of_mean: float | None = None
) -> Servable:
    """What becomes of a meta-model that was trained on `trials`.

    Args:
        packed: The meta-model.
        trials: What it has learned from.
        rmse_of_mean: Of always predicting the mean, on the trials that the model was judged by;
            None where that was not asked.
    """
    space = packed.model.encoder.space
    tags = _tags(packed, trials, rmse_of_mean)
    memory = remember(trials, space)
    read = [c.source for encoder in (packed.model.encoder, memory.encoder) for c in encoder.columns]
    return Servable(
        files=pack(packed, memory.save()),
        example=_example(trials, list(dict.fromkeys(read))),
        tags=tags,
        description=_description(packed, trials, tags),
    )


def _example(trials: pd.DataFrame, read: Sequence[str]) -> pd.DataFrame:
    """The best and the latest trial as rows of raw params, as a caller of the model sends them.

    Of its columns only those that are `read`: MLflow looks at each of a signature in every request.
    """
    rows = trials.loc[[trials["value"].idxmin(), trials.index[-1]]]
    chosen = {name_of(c): rows[c] for c in read if c in rows and c != "task"}
    frame = pd.DataFrame({"task": rows["task"], **chosen}).reset_index(drop=True)
    return frame.astype(object).where(frame.notna(), None)


def save(it: Servable, folder: Path, scratch: Path) -> str:
    """Write the MLflow model to `folder`, which must not be there yet, and seal it.

    Args:
        it: What to write.
        folder: Where.
        scratch: An empty folder for what is copied from.

    Returns:
        The digest of its seal, which the version is to be tagged with.
    """
    data, code = scratch / FILES, scratch / _PACKAGE.name
    data.mkdir()
    for name, content in it.files.items():
        (data / name).write_bytes(content)
    shutil.copytree(_PACKAGE, code, ignore=shutil.ignore_patterns("__pycache__", *_UNSERVED))
    mlflow.pyfunc.save_model(
        str(folder),
        python_model=str(_PACKAGE / "serving.py"),
        artifacts={FILES: str(data)},
        code_paths=[str(code)],
        signature=_signature(it.example),
        input_example=it.example,
        pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", *_REQUIREMENTS)],
    )
    listed = seal.sealed(seal.folder(folder))
    (folder / seal.SEAL).write_bytes(listed)
    return seal.digest_of(listed)


def _signature(example: pd.DataFrame) -> ModelSignature:
    # Any type: params come as numbers from programs, and as the texts that MLflow keeps.
    inputs: list[Any] = [ColSpec(AnyType(), str(name), required=False) for name in example]
    outputs: list[Any] = [ColSpec(DataType[kind], name) for name, kind in COLUMNS.items()]
    kinds = {bool: "boolean", int: "long", float: "double", str: "string"}
    params = [ParamSpec(name, kinds[type(usual)], usual) for name, usual in PARAMS.items()]
    return ModelSignature(Schema(inputs), Schema(outputs), ParamSchema(params))


def _tags(packed: Packed, trials: pd.DataFrame, rmse_of_mean: float | None) -> dict[str, str]:
    model = packed.model
    return {
        names.METRIC: packed.objective.metric,
        names.DIRECTION: packed.objective.direction.value,
        names.HARVEST_RUN: packed.harvest_run_id,
        names.MODEL_KIND: packed.kind,
        names.N_TRIALS: str(len(trials)),
        names.N_TASKS: str(trials["task"].nunique()),
        names.RANK_CORRELATION: f"{model.cv_spearman:.3f}",
        names.RMSE: f"{model.cv_rmse:.3f}",
        **({names.RMSE_OF_MEAN: f"{rmse_of_mean:.3f}"} if rmse_of_mean is not None else {}),
        names.COVERAGE: f"{model.cv_coverage:.3f}",
        names.HAS_SIGNAL: "true" if model.has_signal else "false",
    }


def _description(packed: Packed, trials: pd.DataFrame, tags: Mapping[str, str]) -> str:
    objective, space = packed.objective, packed.model.encoder.space
    better = "higher" if objective.direction is Direction.MAXIMIZE else "lower"
    n_tasks = int(tags[names.N_TASKS])
    of_mean = tags.get(names.RMSE_OF_MEAN)
    mean = f" (always saying the mean: {of_mean})" if of_mean else ""
    n_more = len(space.names) - _MAX_NAMED
    params = ", ".join(_code(name) for name in space.names[:_MAX_NAMED])
    lines = [
        f"Predicts {_code(objective.metric)} ({better} is better) of a configuration, without "
        f"training it. Kind: {packed.kind}.",
        f"- Learned from {len(trials)} trials of {n_tasks} task{'s' * (n_tasks > 1)}.",
        f"- On held-out trials: rank correlation {tags[names.RANK_CORRELATION]}, rmse "
        f"{tags[names.RMSE]}{mean} in standard scores; {tags[names.COVERAGE]} of them inside their "
        "80% interval.",
        f"- Params: {params}" + (f" (+{n_more} more)." if n_more > 0 else "."),
    ]
    if not packed.model.has_signal:
        lines.append("- It could not tell good from bad: do not rely on what it predicts.")
    lines.append('Ask it for suggestions by the params `{"k": 10, "task": "..."}`.')
    return "\n".join([lines[0], "", *lines[1:-1], "", lines[-1]])


_MAX_NAMED = 20  # params that a description names


def _code(name: str) -> str:
    """A name that comes from runs, as Markdown shows it to the letter."""
    shown = "".join(c if c.isprintable() and c != "`" else " " for c in name[:100])
    return f"`{shown}`"
