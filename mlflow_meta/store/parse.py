"""From what was logged in runs to the columns of a meta-dataset.

n   runs that are kept: the trials, and after them the failures
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from mlflow.entities import Experiment

from mlflow_meta import subsets
from mlflow_meta.columns import type_texts
from mlflow_meta.dataset import MetaDataset
from mlflow_meta.store import by_optuna, context, curves, names, quarantine
from mlflow_meta.store.hardware import is_hardware
from mlflow_meta.store.runs import Runs, by_key, one_array
from mlflow_meta.store.secrets import REDACTED
from mlflow_meta.store.texts import MLFLOW_PREFIX
from mlflow_meta.trials import Direction, Objective

MAX_PARAMS = 1000  # names of params that become columns; the most used ones
MAX_METRICS = 1000
MAX_TAGS = 200  # tags of users that become columns of ours
LAST_MS = 4_102_444_800_000  # the year 2100: later times are in another unit, or made up


def to_dataset(
    runs: Runs, experiments: Sequence[Experiment], *, now_ms: int, tags: Sequence[str] = ("*",)
) -> MetaDataset:
    """The meta-dataset of some runs.

    Args:
        runs: In order, see `Runs.in_order`.
        experiments: Those that the runs are of.
        now_ms: What tells a run that still trains from one that was left behind.
        tags: Patterns of the users' tags that become columns, as a shell has them.
    """
    metrics = _objective_metrics(runs)
    why = quarantine.reasons(runs, metrics, now_ms)
    trials = np.flatnonzero(why.reason == "")
    failures = np.flatnonzero(why.reason == quarantine.FAILED)
    kept = runs.rows(np.concatenate([trials, failures]))
    of_id = {e.experiment_id: e.name for e in experiments}
    is_tag = _is_tag(tags, by_optuna.bookkeeping(runs))
    remarks: list[str] = []
    datasets, fact = context.datasets(kept)
    frame = _infos(kept, of_id)
    params = _texts("params.", kept.params, len(kept), MAX_PARAMS, _is_param, remarks)
    columns: dict[str, object] = {
        **params,
        **by_optuna.columns(kept, {column.removeprefix("params.") for column in params}),
        **_metrics(_objective_metrics(kept), len(kept), remarks),
        **_curves(kept, remarks),
        **_texts("tags.", kept.tags, len(kept), MAX_TAGS, is_tag, remarks),
        **context.hardware(kept),
        **context.dataset_columns(datasets, fact),
        **context.code(kept),
    }
    frame["task"] = _tasks(frame["experiment"], [known.name for known in datasets], fact)
    frame = pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)
    left = np.flatnonzero(why.reason != "")
    infos = runs.infos.take(pa.array(left))
    return MetaDataset(
        frame=frame.iloc[: len(trials)],
        failures=frame.iloc[len(trials) :].reset_index(drop=True),
        quarantine=pd.DataFrame(
            {
                "run_id": infos["run_id"].to_pylist(),
                "experiment": [of_id[e] for e in infos["experiment_id"].to_pylist()],
                "status": infos["status"].to_pylist(),
                "reason": why.reason[left].tolist(),
                "detail": why.detail[left].tolist(),
            },
            dtype="str",
        ),
        primary={**by_optuna.primary(runs, of_id), **_primary_metrics(experiments)},
        remarks=tuple(remarks),
    )


def _infos(runs: Runs, experiment_names: Mapping[str, str]) -> pd.DataFrame:
    start = runs.infos["start_ms"].fill_null(-1).to_numpy().copy()
    end = runs.infos["end_ms"].fill_null(-1).to_numpy()
    for key, owners, values in by_key(runs.tags):
        if key == names.STARTED_MS:
            # A suggested run waited in a queue since its creation: the worker writes its start.
            for run, text in zip(owners.tolist(), values.to_pylist(), strict=True):
                if text.isdecimal() and len(text) < len(str(LAST_MS)) + 1:
                    start[run] = int(text)
    sane = (start >= 0) & (start < LAST_MS)
    times = np.where(sane, start, 0).astype("datetime64[ms]")
    times[~sane] = np.datetime64("NaT")
    lasted = sane & (end >= start) & (end < LAST_MS)
    return pd.DataFrame(
        {
            "run_id": runs.infos["run_id"].to_pylist(),
            "experiment_id": runs.infos["experiment_id"].to_pylist(),
            "experiment": [experiment_names[e] for e in runs.infos["experiment_id"].to_pylist()],
            "status": runs.infos["status"].to_pylist(),
            "start_time": pd.DatetimeIndex(times, tz="UTC"),
            "duration_s": np.where(lasted, (end - start) / 1000, np.nan),
        }
    )


def _is_param(key: str) -> bool:
    return not key.startswith(names.PREFIX)


def _is_tag(patterns: Sequence[str], others: Collection[str]) -> Callable[[str], bool]:
    def is_tag(key: str) -> bool:
        return (
            not key.startswith((MLFLOW_PREFIX, names.PREFIX))
            and not is_hardware(key)
            and key not in others
            and any(fnmatchcase(key, pattern) for pattern in patterns)
        )

    return is_tag


def _texts(
    prefix: str,
    table: pa.Table,
    n: int,
    cap: int,
    wanted: Callable[[str], bool],
    remarks: list[str],
) -> dict[str, object]:
    """One typed column `(n,)` for each key that is wanted, at most `cap`."""
    groups = [group for group in by_key(table) if wanted(group[0])]
    allowed = _most_used([(key, len(rows)) for key, rows, _ in groups], cap, prefix, remarks)
    columns: dict[str, object] = {}
    for key, rows, values in groups:
        if key not in allowed:
            continue
        if prefix == "params." and (flags := _flags(key, values, rows, n)):
            columns |= flags
            continue
        columns[prefix + key], odd = type_texts(values, rows, n)
        if odd:
            remarks.append(
                f"{prefix}{key}: {len(odd)} values that are no number among numbers are missing, "
                f"such as {odd[0][:40]!r}."
            )
        if secrets := pc.sum(pc.match_substring(values, REDACTED)).as_py():
            remarks.append(f"{prefix}{key}: {secrets} values that look like secrets are redacted.")
    return columns


def _flags(key: str, values: pa.StringArray, rows: np.ndarray, n: int) -> dict[str, object]:
    """A column `(n,)` for each item of a param that lists items; none where it is no such param."""
    coded = values.dictionary_encode()
    texts = coded.dictionary.to_pylist()
    columns: dict[str, object] = {}
    for flag, used in (subsets.items_of(key, texts) or {}).items():
        is_set = np.array([text in used for text in texts])[coded.indices.to_numpy()]
        column, missing = np.zeros(n, dtype=bool), np.ones(n, dtype=bool)
        column[rows], missing[rows] = is_set, False
        columns[f"params.{flag}"] = pd.Series(pd.arrays.BooleanArray(column, missing))
    return columns


def _most_used(
    counts: Sequence[tuple[str, int]], cap: int, prefix: str, remarks: list[str]
) -> frozenset[str]:
    if len(counts) > cap:
        remarks.append(
            f"{prefix}*: {len(counts)} names were logged; the {cap} that most runs have are kept."
        )
    ranked = sorted(counts, key=lambda item: (-item[1], item[0]))
    return frozenset(key for key, _ in ranked[:cap])


def _objective_metrics(runs: Runs) -> pa.Table:
    """The metrics that a training has measured of its model."""
    metrics = runs.metrics
    if not metrics.num_rows:
        return metrics
    key = one_array(metrics["key"])
    texts = key.dictionary.to_pylist()
    system = np.array([text.startswith((curves.SYSTEM, names.PREFIX)) for text in texts])
    codes = key.indices.to_numpy()
    dropped = system[codes] | curves.predicted(runs, metrics)
    return metrics.filter(pa.array(~dropped)) if dropped.any() else metrics


def _metrics(metrics: pa.Table, n: int, remarks: list[str]) -> dict[str, object]:
    """The last value of each metric, and at which step that was where some were not 0."""
    learned = metrics.filter(pa.array(quarantine.usable(metrics)))
    key = one_array(learned["key"])
    used = Counter({str(c["values"]): int(c["counts"]) for c in key.value_counts().to_pylist()})
    allowed = _most_used(list(used.items()), MAX_METRICS, "metrics.", remarks)
    last: dict[str, object] = {}
    steps: dict[str, object] = {}
    for values, (name, rows, step) in zip(
        by_key(learned), by_key(learned.drop_columns("value").rename_columns({"step": "value"})),
        strict=True,
    ):  # fmt: skip
        if name not in allowed:
            continue
        column = np.full(n, np.nan)
        column[rows] = values[2].to_numpy()
        last[f"metrics.{name}"] = column
        if np.any(step.to_numpy() != 0):
            steps[f"step.{name}"] = _integers(rows, step.to_numpy(), n)
    return {**last, **steps}


def _curves(runs: Runs, remarks: list[str]) -> dict[str, object]:
    """The best values of each curve, and at which step those were where some were not 0."""
    remarks += curves.remarks(runs.curves)
    found = list(curves.extremes(runs.curves))
    counts = [(key, len(rows)) for key, rows, _ in found]
    allowed = _most_used(counts, MAX_METRICS, "curves of metrics.", remarks)
    columns: dict[str, object] = {}
    for key, rows, extremes in found:
        for name, (values, steps) in extremes.items() if key in allowed else ():
            column = np.full(len(runs), np.nan)
            column[rows] = values
            columns[f"{name}.{key}"] = column
            if np.any(steps != 0):
                columns[f"{name}_step.{key}"] = _integers(rows, steps, len(runs))
    return columns


def _integers(rows: np.ndarray, values: np.ndarray, n: int) -> pd.Series:
    column, missing = np.zeros(n, dtype=np.int64), np.ones(n, dtype=bool)
    column[rows], missing[rows] = values, False
    return pd.Series(pd.arrays.IntegerArray(column, missing))


def _tasks(experiments: pd.Series, datasets: Sequence[str | None], of_run: np.ndarray) -> list[str]:
    """The experiment; and the data set where the experiment's runs name several.

    Args:
        experiments: `(n,)` name of each run's experiment.
        datasets: Names of the distinct data sets.
        of_run: `(n,)` which data set is a run's.
    """
    codes, known = pd.factorize(experiments)
    pair, first = context.distinct([codes, of_run], len(codes))
    pairs = [(str(known[codes[run]]), datasets[of_run[run]]) for run in first.tolist()]
    n_names = Counter(experiment for experiment, name in set(pairs) if name is not None)
    tasks = [
        f"{experiment} / {name}" if n_names[experiment] > 1 and name else experiment
        for experiment, name in pairs
    ]
    return [tasks[i] for i in pair.tolist()]


def _primary_metrics(experiments: Iterable[Experiment]) -> dict[str, Objective]:
    """The objectives that teams have set as tags of their experiments."""
    found: dict[str, Objective] = {}
    for experiment in experiments:
        metric = experiment.tags.get("mlflow.experiment.primaryMetric.name")
        greater = experiment.tags.get("mlflow.experiment.primaryMetric.greaterIsBetter", "").lower()
        if metric and greater in ("true", "false"):
            direction = Direction.MAXIMIZE if greater == "true" else Direction.MINIMIZE
            found[experiment.name] = Objective(metric=metric, direction=direction)
    return found
