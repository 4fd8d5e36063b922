"""What is kept of the texts of params and tags: what is short, says something, and is no secret."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from mlflow_meta.store import by_optuna, secrets
from mlflow_meta.store.inputs import HISTORY
from mlflow_meta.store.runs import TEXTS, Runs, by_key

MLFLOW_TAGS = (
    "mlflow.parentRunId",
    "mlflow.log-model.history",
    "mlflow.source.git.commit",
    "mlflow.source.git.branch",
    "mlflow.source.git.repoURL",
    "mlflow.project.entryPoint",
)
"""The tags of MLflow's own that are read, beside those that start with `DATABRICKS_PREFIX`."""
MLFLOW_PREFIX = "mlflow."
DATABRICKS_PREFIX = "mlflow.databricks."

MAX_CHARS = 250  # of a value that is kept as it is; a longer one is a document, not a choice
CUT_CHARS = 6000  # MLflow cuts longer params without a word
CUT_MARK = "cut by MLflow"


def shortened(params: pa.Table) -> pa.Table:
    """Long params by their first characters and a hash: what a reader keeps of them."""
    return _replaced(params, pc.greater(pc.utf8_length(params["value"]), MAX_CHARS), _brief)


def relevant(tags: pa.Table) -> pa.Table:
    """The tags that are kept: MLflow's own that we read, distributions, and users' short ones."""
    key = tags["key"].cast(pa.string())
    history = pc.equal(key, HISTORY)
    of_mlflow = pc.starts_with(key, MLFLOW_PREFIX)
    read = pc.or_(pc.is_in(key, pa.array(MLFLOW_TAGS)), pc.starts_with(key, DATABRICKS_PREFIX))
    short = pc.less_equal(pc.utf8_length(tags["value"]), MAX_CHARS)
    short = pc.or_(short, by_optuna.is_distribution(tags))
    kept = pc.or_(read, pc.and_(pc.invert(of_mlflow), short))
    return _replaced(tags.filter(kept), history.filter(kept), _newest_model)


def _replaced(table: pa.Table, mask: pa.ChunkedArray, change: Callable[[str], str]) -> pa.Table:
    """`change` applied to the values where `mask` holds."""
    if not pc.any(mask).as_py():
        return table
    value = table["value"].cast(pa.string()).combine_chunks()
    chosen = mask.combine_chunks()
    changed = pa.array([change(text) for text in value.filter(chosen).to_pylist()], pa.string())
    return table.set_column(
        table.column_names.index("value"), "value", pc.replace_with_mask(value, chosen, changed)
    )


def _newest_model(history: str) -> str:
    """What `inputs` reads of the models that a run logged; the whole may be as long as a book."""
    try:
        models = json.loads(history)
    except (ValueError, RecursionError):
        return ""
    known = [m for m in models if isinstance(m, dict)] if isinstance(models, list) else []
    if not known:
        return ""
    newest = next((model for model in reversed(known) if model.get("signature")), known[-1])
    kept = {name: newest.get(name) for name in ("signature", "flavors", "mlflow_version")}
    return json.dumps([kept], sort_keys=True)


def _brief(text: str) -> str:
    cut = f", {CUT_MARK}" if len(text) == CUT_CHARS else ""
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
    return f"{text[:100]} ... [{len(text)} characters{cut}, {digest}]"


def without_secrets(runs: Runs) -> Runs:
    """The runs, in order, with the secrets among their params and tags redacted."""
    return replace(runs, params=redacted(runs.params), tags=redacted(runs.tags))


def redacted(texts: pa.Table) -> pa.Table:
    """`(m,)` rows of `TEXTS`, in order, with the secrets among them redacted."""
    hinted, start = secrets.hinted(texts["value"]), 0
    parts, n_found = [], 0
    for key, rows, values in by_key(texts):
        end = start + len(rows)
        if hinted[start:end].any() or secrets.is_telling(key):
            values, n = secrets.redacted(key, values)
            n_found += n
        parts.append(values)
        start = end
    if not n_found:
        return texts
    return texts.set_column(2, TEXTS.field("value"), pa.chunked_array(parts).combine_chunks())
