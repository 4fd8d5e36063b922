"""The meta-dataset: every run that teaches something, as one frame.

Columns keep the spelling of `mlflow.search_runs`, so that users know them already:

run_id, experiment_id, experiment, status    text
start_time                                   UTC timestamp
duration_s                                   seconds of training, without the time in a queue
task                                         which runs are comparable with each other
params.<name>                                typed once, by column: Int64, float64, boolean, string
metrics.<name>                               float64, the last value logged
tags.<name>                                  text; the tags that users set, not MLflow's own
hardware.<name>                              what it ran on: text or number
dataset.name, dataset.digest                 text
dataset.rows, dataset.columns                numbers
dataset.feature.<name>                       whether the run used that column of its data set
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlflow_meta.errors import NothingToLearn
from mlflow_meta.trials import Config, ConfigValue, Direction, Objective

CONTEXT = ("hardware.", "dataset.", "tags.")
"""Prefixes of what is given for a run rather than chosen."""

REQUIRED = (
    "run_id",
    "experiment_id",
    "experiment",
    "status",
    "start_time",
    "duration_s",
    "task",
)

_UNSET = frozenset({"", "None", "none", "null", "nan", "NaN", "NA"})
_LEADING_ZERO = re.compile(r"\s*[-+]?0\d")
_PARQUET_KEY = b"mlflow_meta"
_HUGE = 1e300  # MLflow stores +-inf as +-1.797e308

_MAXIMIZED = frozenset(
    [
        "accuracy",
        "acc",
        "auc",
        "auroc",
        "auprc",
        "ap",
        "f1",
        "fbeta",
        "precision",
        "recall",
        "r2",
        "score",
        "map",
        "ndcg",
        "bleu",
        "rouge",
        "iou",
        "dice",
        "reward",
        "return",
        "correlation",
        "spearman",
        "pearson",
        "kappa",
        "mcc",
        "specificity",
        "sensitivity",
        "likelihood",
    ]
)
_MINIMIZED = frozenset(
    [
        "loss",
        "logloss",
        "error",
        "err",
        "rmse",
        "mse",
        "mae",
        "mape",
        "smape",
        "rmsle",
        "perplexity",
        "nll",
        "wer",
        "cer",
        "brier",
        "deviance",
        "regret",
        "time",
        "seconds",
        "latency",
        "duration",
        "cost",
        "entropy",
        "distance",
        "fid",
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaDataset:
    """The frame of this module's docstring, with what the teams said about their metrics.

    Attributes:
        frame: One row a run; finished runs with at least one finite metric.
        primary: Experiment name -> the objective that its team has set in MLflow, where it has.
        quarantined: Reason -> how many runs were read and left out for it.
    """

    frame: pd.DataFrame
    primary: Mapping[str, Objective] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [name for name in REQUIRED if name not in self.frame]
        if missing:
            raise ValueError(f"A meta-dataset needs the columns {missing}.")

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the order in which they first appear."""
        return list(dict.fromkeys(self.frame["task"]))

    def metrics(self) -> dict[str, int]:
        """Metric -> how many runs have a finite value of it, most first."""
        names = columns_with(self.frame, "metrics.")
        counts = {n.removeprefix("metrics."): int(_finite(self.frame[n]).sum()) for n in names}
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def objective(self, metric: str | None, direction: Direction | None = None) -> Objective:
        """The objective to learn: what was asked, else what the teams have set in MLflow.

        Args:
            metric: A metric's name; None takes the primary metric of the experiments read.
            direction: None takes the experiments' own word, else what the name says.

        Raises:
            NothingToLearn: If the metric or its direction can't be told; names the candidates.
        """
        stated = {o.metric: o.direction for o in self.primary.values()}
        disputed = {o.metric for o in self.primary.values() if stated[o.metric] is not o.direction}
        if metric is None:
            if len(stated) != 1:
                known = ", ".join(f"{name} ({n})" for name, n in list(self.metrics().items())[:8])
                raise NothingToLearn(
                    "Which metric should be learned? Pass --metric. Metrics with the number of "
                    f"runs that have them: {known or 'none'}."
                )
            metric = next(iter(stated))
        if metric in disputed and direction is None:
            sides = ", ".join(
                f"{name} says {o.direction.value}"
                for name, o in self.primary.items()
                if o.metric == metric
            )
            raise NothingToLearn(
                f"The experiments disagree on {metric!r}: {sides}. Pass --direction, or learn from "
                "those that agree with -e."
            )
        direction = direction or stated.get(metric) or direction_of(metric)
        if direction is None:
            raise NothingToLearn(
                f"Is a low or a high {metric!r} better? Pass --direction minimize or maximize, or "
                "set the experiment tag mlflow.experiment.primaryMetric.greaterIsBetter."
            )
        return Objective(metric=metric, direction=direction)

    def trials(self, objective: Objective) -> pd.DataFrame:
        """The runs that have the objective's metric, as trials.

        Returns:
            `run_id`, `task`, `value` (minimised) and every `params.*` and context column that is
            set in at least one of them; rows in the order of their start.

        Raises:
            NothingToLearn: If no run has the metric; names the metrics that there are.
        """
        column = f"metrics.{objective.metric}"
        if column not in self.frame or not _finite(self.frame[column]).any():
            known = ", ".join(f"{name} ({n})" for name, n in list(self.metrics().items())[:8])
            raise NothingToLearn(
                f"None of the {len(self)} finished runs has the metric {objective.metric!r}. "
                f"Pass --metric with one that was logged: {known or 'none was'}."
            )
        rows = self.frame[_finite(self.frame[column])].sort_values(["start_time", "run_id"])
        read = columns_with(rows, "params.", *CONTEXT)
        kept = [column for column in read if rows[column].notna().any()]
        trials = rows[["run_id", "experiment", "task", *kept]].reset_index(drop=True)
        trials.insert(3, "value", objective.direction.sign * rows[column].to_numpy(float))
        return trials

    def only(self, experiment_names: Sequence[str]) -> MetaDataset:
        """The part that comes from some experiments; all of it if none is named.

        Raises:
            NothingToLearn: If none of the runs is from one of them; names those that there are.
        """
        if not experiment_names:
            return self
        harvested = set(self.frame["experiment"])
        if missing := [name for name in experiment_names if name not in harvested]:
            raise NothingToLearn(
                f"The harvest has no run of the experiment {missing[0]!r}; it has "
                f"{', '.join(sorted(harvested)[:8])}. Run `mlflow-meta harvest -e {missing[0]}`."
            )
        rows = self.frame["experiment"].isin(list(experiment_names))
        primary = {name: o for name, o in self.primary.items() if name in experiment_names}
        return MetaDataset(frame=self.frame[rows], primary=primary, quarantined=self.quarantined)

    def to_parquet(self) -> bytes:
        """The whole meta-dataset as one parquet file."""
        extra = {
            "primary": {
                name: {"metric": o.metric, "direction": o.direction.value}
                for name, o in self.primary.items()
            },
            "quarantined": dict(self.quarantined),
        }
        # Arrow asks pandas 3 for the times in a way that it deprecates: hand them over ourselves.
        times = self.frame["start_time"].dt.tz_convert(None).to_numpy("datetime64[ms]")
        table = pa.Table.from_pandas(self.frame.drop(columns="start_time"), preserve_index=False)
        table = table.append_column("start_time", pa.array(times, pa.timestamp("ms", tz="UTC")))
        metadata = {**(table.schema.metadata or {}), _PARQUET_KEY: json.dumps(extra).encode()}
        buffer = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(metadata), buffer)
        return buffer.getvalue()

    @classmethod
    def from_parquet(cls, content: bytes) -> MetaDataset:
        """Inverse of `to_parquet`."""
        table = pq.read_table(io.BytesIO(content))
        extra = json.loads((table.schema.metadata or {}).get(_PARQUET_KEY, b"{}"))
        others = [name for name in table.column_names if name not in REQUIRED]
        return cls(
            frame=table.select([*REQUIRED, *others]).to_pandas(),
            primary={
                name: Objective(metric=o["metric"], direction=Direction(o["direction"]))
                for name, o in extra.get("primary", {}).items()
            },
            quarantined=extra.get("quarantined", {}),
        )


def direction_of(metric: str) -> Direction | None:
    """What a metric's name says about its direction; None where it says nothing or both."""
    words = set(metric.lower().replace("-", "_").replace("/", "_").replace(" ", "_").split("_"))
    low, high = bool(words & _MINIMIZED), bool(words & _MAXIMIZED)
    if low == high:
        return None
    negated = bool(words & {"neg", "negative"})
    return Direction.MINIMIZE if low != negated else Direction.MAXIMIZE


def type_column(texts: Sequence[str | None]) -> pd.Series:
    """Type one column of logged texts, once for the whole column.

    The narrowest of Int64, float64, boolean and string that holds every text. Texts that mean
    "not set" (None, nan, ...) are missing in a column of numbers, and a category in one of texts.
    """
    texts = list(texts)
    logged = Counter(text for text in texts if text is not None and text not in _UNSET)
    if logged and all(text in ("True", "False") for text in logged):
        flags = [None if text not in logged else text == "True" for text in texts]
        return pd.Series(pd.array(flags, dtype="boolean"))
    numbers = {text: _number(text) for text in logged}
    if logged and all(number is not None for number in numbers.values()):
        values = [numbers.get(text) if text is not None else None for text in texts]
        if all(isinstance(number, int) for number in numbers.values()):
            return pd.Series(pd.array(values, dtype="Int64"))
        return pd.Series([np.nan if v is None else float(v) for v in values], dtype="float64")
    return pd.Series(pd.array(texts, dtype="string"))


def columns_with(frame: pd.DataFrame, *prefixes: str) -> list[str]:
    """The columns of a frame whose name starts with one of the prefixes, in their order."""
    return [str(column) for column in frame.columns if str(column).startswith(prefixes)]


def config_of(row: Mapping[Any, Any]) -> dict[str, ConfigValue]:
    """The configuration in one row of a frame: its `params.*` that are set, as Python values."""
    config: dict[str, ConfigValue] = {}
    for name, value in row.items():
        if str(name).startswith("params.") and not pd.isna(value):
            plain = value.item() if isinstance(value, np.generic) else value
            assert isinstance(plain, str | int | float | bool)
            config[str(name).removeprefix("params.")] = plain
    return config


def frame_of(configs: Sequence[Config], names: Sequence[str]) -> pd.DataFrame:
    """`configs` as a frame of `params.<name>` columns, missing where a config lacks the name."""
    return pd.DataFrame(
        {f"params.{name}": [config.get(name) for config in configs] for name in names},
        index=range(len(configs)),
    )


def _number(text: str) -> int | float | None:
    if "_" in text or not text.isascii():
        return None  # Python would read 1_000, but whoever logged it did not mean a number
    if _LEADING_ZERO.match(text):
        return None  # a label such as 007, which no number spells
    try:
        whole = int(text)
        return whole if abs(whole) < 2**63 and str(whole) == text else float(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _finite(column: pd.Series) -> pd.Series:
    values = column.to_numpy(float, na_value=np.nan)
    return pd.Series(np.isfinite(values) & (np.abs(values) < _HUGE), index=column.index)
