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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlflow_meta.columns import CONTEXT, columns_with
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.trials import Direction, Objective

REQUIRED = (
    "run_id",
    "experiment_id",
    "experiment",
    "status",
    "start_time",
    "duration_s",
    "task",
)

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
        self._check_logged(metric)
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

    def _check_logged(self, metric: str) -> None:
        """Raise if no run has the metric; names those that there are."""
        if not self.metrics().get(metric):
            known = ", ".join(f"{name} ({n})" for name, n in list(self.metrics().items())[:8])
            raise NothingToLearn(
                f"None of the {len(self)} finished runs has the metric {metric!r}. "
                f"Pass --metric with one that was logged: {known or 'none was'}."
            )

    def trials(self, objective: Objective) -> pd.DataFrame:
        """The runs that have the objective's metric, as trials.

        Returns:
            `run_id`, `task`, `value` (minimised) and every `params.*` and context column that is
            set in at least one of them; rows in the order of their start.

        Raises:
            NothingToLearn: If no run has the metric; names the metrics that there are.
        """
        self._check_logged(objective.metric)
        column = f"metrics.{objective.metric}"
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


def _finite(column: pd.Series) -> pd.Series:
    values = column.to_numpy(float, na_value=np.nan)
    return pd.Series(np.isfinite(values) & (np.abs(values) < _HUGE), index=column.index)
