"""What was given for each run: hardware, code and data set, as columns.

n   runs

Runs say the same over and over. So the distinct answers are read once, and handed to their runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from mlflow_meta.store import curves
from mlflow_meta.store.hardware import hardware_of, is_hardware
from mlflow_meta.store.inputs import HISTORY, DatasetFacts, code_of, dataset_of, signature_of
from mlflow_meta.store.runs import Runs, by_key, one_array
from mlflow_meta.store.texts import DATABRICKS_PREFIX

MAX_FEATURES = 200  # columns of a data set that become columns of ours

_HARDWARE = {
    "cpu_model": "string",
    "cpu_cores": "Int64",
    "memory_gb": "Float64",
    "gpu_model": "string",
    "gpu_count": "Int64",
    "gpu_memory_gb": "Float64",
    "accelerator": "boolean",
    "instance_type": "string",
    "machine": "string",
}


def _gathered(
    table: pa.Table, n: int, wanted: Callable[[str], bool]
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """What runs have of the wanted keys: the distinct answers, and `(n,)` which one is a run's."""
    groups = [group for group in by_key(table) if wanted(group[0])]
    columns = [_codes(rows, values, n) for _, rows, values in groups]
    of_run, first = distinct(columns, n)
    texts = [values.dictionary_encode().dictionary.to_pylist() for _, _, values in groups]
    answers = [
        {
            key: known[column[run]]
            for (key, _, _), known, column in zip(groups, texts, columns, strict=True)
            if column[run] >= 0
        }
        for run in first.tolist()
    ]
    return answers, of_run


def _codes(rows: np.ndarray, values: pa.Array, n: int) -> np.ndarray:
    """`(n,)` places of the runs' values in the dictionary of `values`; -1 where a run has none."""
    codes = np.full(n, -1, dtype=np.int64)
    codes[rows] = values.dictionary_encode().indices.to_numpy()
    return codes


def distinct(columns: Sequence[np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of columns `(n,)` of codes >= -1.

    Returns:
        `(n,)` which of them a row is, and the first row of each.
    """
    which = np.zeros(n, dtype=np.int64)
    for column in columns:
        both = which * (int(column.max(initial=-1)) + 2) + column + 1
        which = np.unique(both, return_inverse=True)[1].ravel()
    return which, np.unique(which, return_index=True)[1]


def hardware(runs: Runs) -> dict[str, object]:
    """The columns `hardware.<fact>` that some run has."""
    n = len(runs)
    tags, by_tags = _gathered(runs.tags, n, is_hardware)
    system, by_system = _gathered(runs.metrics, n, lambda key: key.startswith(curves.SYSTEM))
    of_run, first = distinct([by_tags, by_system], n)
    facts = [hardware_of(tags[by_tags[run]], system[by_system[run]]) for run in first.tolist()]
    known = {name for fact in facts for name in fact}
    return {
        f"hardware.{name}": _nullable([fact.get(name) for fact in facts], dtype).take(of_run)
        for name, dtype in _HARDWARE.items()
        if name in known
    }


def code(runs: Runs) -> dict[str, object]:
    """The columns `code.<fact>` that some run has."""

    def wanted(key: str) -> bool:
        return key.startswith(("mlflow.source.git.", "mlflow.project.", DATABRICKS_PREFIX, HISTORY))

    tags, of_run = _gathered(runs.tags, len(runs), wanted)
    facts = [code_of(tag) for tag in tags]
    found = sorted({name for fact in facts for name in fact})
    return {
        f"code.{name}": _nullable([fact.get(name) for fact in facts], "string").take(of_run)
        for name in found
    }


def datasets(runs: Runs) -> tuple[list[DatasetFacts], np.ndarray]:
    """The distinct data sets, and `(n,)` which one each run was trained on; 0 is none."""
    facts: dict[DatasetFacts, int] = {DatasetFacts(): 0}
    of_run = np.zeros(len(runs), dtype=np.int64)
    for key, owners, values in by_key(runs.tags):
        if key == HISTORY:
            signatures = values.dictionary_encode()
            known = [
                facts.setdefault(signature_of(text) or DatasetFacts(), len(facts))
                for text in signatures.dictionary.to_pylist()
            ]
            of_run[owners] = np.array(known)[signatures.indices.to_numpy()]
    chosen = _training_inputs(runs.inputs)
    coded = [one_array(chosen[name]) for name in ("key", "digest", "schema", "profile")]
    which, first = distinct([column.indices.to_numpy() for column in coded], chosen.num_rows)
    described = [
        facts.setdefault(dataset_of(*(column[row].as_py() for column in coded)), len(facts))
        for row in first.tolist()
    ]
    of_run[chosen["run"].to_numpy()] = np.array(described, dtype=np.int64)[which]
    return list(facts), of_run


def _training_inputs(inputs: pa.Table) -> pa.Table:
    """The data set of each run that has any: the first of those that it was trained on, if told."""
    context = one_array(inputs["context"])
    ranks = [{"training": 2, "train": 1}.get(text, 0) for text in context.dictionary.to_pylist()]
    rank = np.array(ranks, dtype=np.int64)[context.indices.to_numpy()]
    run = inputs["run"].to_numpy()
    order = np.lexsort((np.arange(len(run)), -rank, run))
    first = np.ones(len(order), dtype=bool)
    first[1:] = run[order][1:] != run[order][:-1]
    return inputs.take(pa.array(order[first]))


def dataset_columns(facts: Sequence[DatasetFacts], of_run: np.ndarray) -> dict[str, object]:
    """The columns `dataset.<fact>`, of what `datasets` has found."""
    if len(facts) == 1:
        return {}

    def column(values: Iterable[object], dtype: str) -> object:
        return _nullable(list(values), dtype).take(of_run)

    columns: dict[str, object] = {
        "dataset.name": column((f.name for f in facts), "string"),
        "dataset.digest": column((f.digest for f in facts), "string"),
        "dataset.source": column((f.source for f in facts), "string"),
        "dataset.rows": column((f.rows for f in facts), "Float64"),
        "dataset.columns": column((f.columns for f in facts), "Int64"),
    }
    weights = np.bincount(of_run, minlength=len(facts))
    counts: Counter[str] = Counter()
    for fact, weight in zip(facts, weights.tolist(), strict=True):
        counts.update(dict.fromkeys(fact.features, weight))
    for feature in sorted(name for name, _ in counts.most_common(MAX_FEATURES)):
        used = (feature in f.features if f.features else None for f in facts)
        columns[f"dataset.feature.{feature}"] = column(used, "boolean")
    return columns


def _nullable(values: list[Any], dtype: str) -> pd.api.extensions.ExtensionArray:
    made: pd.api.extensions.ExtensionArray = pd.array(values, dtype=dtype)  # type: ignore[call-overload]
    return made
