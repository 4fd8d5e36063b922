"""The server's answers about runs: from JSON to columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from typing import TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from mlflow_meta.store.runs import (
    INFOS,
    INPUTS,
    KEY,
    METRICS,
    OUTPUTS,
    TEXTS,
    Runs,
)
from mlflow_meta.store.texts import relevant, shortened

CONTEXT_TAG = "mlflow.data.context"

T = TypeVar("T")


class _Item(msgspec.Struct, gc=False):
    key: str = ""
    value: str | None = ""


class _Point(msgspec.Struct, gc=False):
    key: str = ""
    value: float | str | None = 0.0  # protobuf writes NaN and infinities as texts
    timestamp: int = 0
    step: int = 0


class _Dataset(msgspec.Struct, gc=False):
    name: str = ""
    digest: str = ""
    schema: str | None = None
    profile: str | None = None


class _Input(msgspec.Struct):
    dataset: _Dataset = msgspec.field(default_factory=_Dataset)
    tags: list[_Item] = []


class _Inputs(msgspec.Struct):
    dataset_inputs: list[_Input] = []


class _Model(msgspec.Struct, gc=False):
    model_id: str = ""


class _Outputs(msgspec.Struct):
    model_outputs: list[_Model] = []


class _Data(msgspec.Struct):
    params: list[_Item] = []
    tags: list[_Item] = []
    metrics: list[_Point] = []


class _Info(msgspec.Struct, gc=False):
    run_id: str
    experiment_id: str
    status: str = "RUNNING"
    start_time: int = 0
    end_time: int | None = None


class Run(msgspec.Struct):
    """One run of an answer."""

    info: _Info
    data: _Data = msgspec.field(default_factory=_Data)
    inputs: _Inputs = msgspec.field(default_factory=_Inputs)
    outputs: _Outputs = msgspec.field(default_factory=_Outputs)


class _Answer(msgspec.Struct):
    runs: list[Run] = []


_DECODER = msgspec.json.Decoder(_Answer, strict=False)


def runs_in(content: bytes) -> list[Run]:
    """The runs of an answer to `runs/search`."""
    return decoded(content, _DECODER).runs


def decoded(content: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """A JSON document, also one with what JSON forbids and MLflow's servers write all the same."""
    try:
        return decoder.decode(content)
    except msgspec.DecodeError:
        # Python's own parser takes them: NaN, half a character.
        text = content.decode("utf-8", "replace")
        plain = json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace")
        raw = msgspec.json.decode(_without_nan(plain))
        return msgspec.convert(raw, decoder.type, strict=False)


def _without_nan(content: bytes) -> bytes:
    for word in (b"NaN", b"-Infinity", b"Infinity"):
        content = content.replace(b": " + word, b': "' + word + b'"')
    return content


def as_columns(runs: Sequence[Run]) -> Runs:
    """The runs, in the answer's order."""
    infos = [run.info for run in runs]
    inputs = [run.inputs.dataset_inputs for run in runs]
    datasets = list(chain.from_iterable(inputs))
    models = [sorted({m.model_id for m in run.outputs.model_outputs})[-1:] for run in runs]
    return Runs(
        infos=pa.table(
            [
                [info.run_id for info in infos],
                [info.experiment_id for info in infos],
                [info.status for info in infos],
                [info.start_time for info in infos],
                [info.end_time or None for info in infos],
            ],
            schema=INFOS,
        ),
        params=shortened(_texts([run.data.params for run in runs])),
        tags=relevant(_texts([run.data.tags for run in runs])),
        metrics=_points([run.data.metrics for run in runs]),
        inputs=pa.table(
            [
                _owners(inputs),
                _coded([item.dataset.name for item in datasets]),
                _coded([item.dataset.digest for item in datasets]),
                _coded([item.dataset.schema or "" for item in datasets]),
                _coded([item.dataset.profile or "" for item in datasets]),
                _coded([_context(item) for item in datasets]),
            ],
            schema=INPUTS,
        ),
        outputs=pa.table(
            [_owners(models), _coded(list(chain.from_iterable(models)))], schema=OUTPUTS
        ),
    )


def _texts(rows: Sequence[Sequence[_Item]]) -> pa.Table:
    items = list(chain.from_iterable(rows))
    columns = [
        _owners(rows),
        _coded([item.key for item in items]),
        pa.array([item.value or "" for item in items], pa.string()),
    ]
    return pa.table(columns, schema=TEXTS)


def _points(rows: Sequence[Sequence[_Point]]) -> pa.Table:
    points = list(chain.from_iterable(rows))
    columns = [
        _owners(rows),
        _coded([point.key for point in points]),
        pa.array([number(point.value) for point in points], pa.float64()),
        pa.array([point.timestamp for point in points], pa.int64()),
        pa.array([point.step for point in points], pa.int64()),
    ]
    return pa.table(columns, schema=METRICS)


def _owners(rows: Sequence[Sequence[object]]) -> pa.Array:
    counts = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    return pa.array(np.repeat(np.arange(len(rows), dtype=np.int32), counts))


def _coded(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.string()).dictionary_encode().cast(KEY)


def number(value: float | str | None) -> float:
    """A metric's value; NaN where it is none."""
    try:
        return float(value if value is not None else "nan")
    except ValueError:
        return float("nan")


def _context(item: _Input) -> str:
    return next((tag.value or "" for tag in item.tags if tag.key == CONTEXT_TAG), "")
