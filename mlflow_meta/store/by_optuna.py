"""What runs say that Optuna has made: the distributions of their params, and the study's direction.

Its MLflow callback tags a run with `<param>_distribution`, the distribution's repr, and with
`direction`. MLflow's own storage for Optuna keeps all distributions of a trial as JSON in the tag
`param_directions`, and the direction with the study, a run of the same experiment.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mlflow_meta.columns import DISTRIBUTION
from mlflow_meta.space import read_distribution
from mlflow_meta.store.runs import Runs, by_key
from mlflow_meta.trials import Direction, Objective

STORED = "param_directions"
SUFFIX = "_distribution"
REPR = r"^[A-Za-z]+Distribution\("
_STUDY = "optuna.study_direction"
_DIRECTION = "direction"
_OF_CALLBACK = ("number", "datetime_start", "datetime_complete", "state", _DIRECTION)
_OF_STORAGE = ("numbers", _STUDY, STORED)
_OF_STORAGE_PREFIXES = ("param_internal_val_", "sys_")
_VALUE = "value"  # what both call the objective's metric, unless told otherwise


def is_distribution(tags: pa.Table) -> pa.ChunkedArray:
    """`(m,)`: which tags hold distributions; they are kept whole, however long."""
    key = tags["key"].cast(pa.string())
    tagged = pc.and_(pc.ends_with(key, SUFFIX), pc.match_substring_regex(tags["value"], REPR))
    return pc.or_(pc.equal(key, STORED), tagged)


def columns(runs: Runs, params: Collection[str]) -> dict[str, object]:
    """`distribution.<param>`, of some params: its text in each run that tells it, `(n,)`."""
    texts: dict[str, dict[int, str]] = {}
    for run, param, text in _distributions(runs):
        if param in params:
            texts.setdefault(param, {})[run] = text
    return {
        DISTRIBUTION + param: pd.array([known.get(run) for run in range(len(runs))], "string")
        for param, known in sorted(texts.items())
    }


def bookkeeping(runs: Runs) -> frozenset[str]:
    """The keys of tags that are Optuna's own and tell nothing of what was given for a run."""
    keys = [key for key, _, _ in by_key(runs.tags)]
    own = {param + SUFFIX for _, param, _ in _tagged(runs)}
    if own:
        own |= {key for key in keys if key in _OF_CALLBACK}
    if STORED in keys or _STUDY in keys:
        own |= {k for k in keys if k in _OF_STORAGE or k.startswith(_OF_STORAGE_PREFIXES)}
    return frozenset(own)


def primary(runs: Runs, experiment_names: Mapping[str, str]) -> dict[str, Objective]:
    """Experiment -> what its studies of one objective have sought, where they agree on it.

    Args:
        runs: `(n,)`, the studies' own among them.
        experiment_names: Id -> name.
    """
    experiments = [experiment_names[e] for e in runs.infos["experiment_id"].to_pylist()]
    from_callback = {run for run, _, _ in _tagged(runs)}
    directions: dict[str, set[str]] = {}
    for key, owners, values in by_key(runs.tags):
        for run, text in zip(owners.tolist(), values.to_pylist(), strict=True):
            if key == _STUDY or (key == _DIRECTION and run in from_callback):
                directions.setdefault(experiments[run], set()).add(text.lower())
    metrics = _metrics(runs, experiments, from_callback)
    known = {direction.value: direction for direction in Direction}
    found = {}
    for experiment, texts in directions.items():
        logged = metrics.get(experiment, {_VALUE})
        metric = _VALUE if _VALUE in logged else next(iter(logged))
        if len(texts) == 1 and texts <= known.keys() and (len(logged) == 1 or metric == _VALUE):
            found[experiment] = Objective(metric=metric, direction=known[texts.pop()])
    return found


def _metrics(runs: Runs, experiments: list[str], among: set[int]) -> dict[str, set[str]]:
    """Experiment -> the metrics that some of its runs have logged."""
    found: dict[str, set[str]] = {}
    for key, owners, _ in by_key(runs.metrics.select(["run", "key", "value"])):
        for run in among & set(np.unique(owners).tolist()):
            found.setdefault(experiments[run], set()).add(key)
    return found


def _distributions(runs: Runs) -> Iterator[tuple[int, str, str]]:
    """Run, param, and text of its distribution."""
    yield from _tagged(runs)
    for key, owners, values in by_key(runs.tags):
        if key == STORED:
            for run, text in zip(owners.tolist(), values.to_pylist(), strict=True):
                yield from ((run, param, known) for param, known in _stored(text))


def _tagged(runs: Runs) -> Iterator[tuple[int, str, str]]:
    for key, owners, values in by_key(runs.tags):
        if key.endswith(SUFFIX):
            for run, text in zip(owners.tolist(), values.to_pylist(), strict=True):
                if _is_read(text):
                    yield run, key.removesuffix(SUFFIX), text


def _stored(text: str) -> list[tuple[str, str]]:
    try:
        known = json.loads(text)
    except (ValueError, RecursionError):
        return []
    items = known.items() if isinstance(known, dict) else ()
    return [(k, v) for k, v in items if isinstance(v, str) and _is_read(v)]


@lru_cache(maxsize=4096)
def _is_read(text: str) -> bool:
    try:
        read_distribution(text)
    except ValueError:
        return False
    return True
