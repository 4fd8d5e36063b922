"""The meta-dataset itself: its parts, its tasks, its file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from mlflow_meta.columns import CONTEXT, DISTRIBUTION, columns_with
from mlflow_meta.dataset import objectives, parquet
from mlflow_meta.dataset.leakage import Leak, leaks
from mlflow_meta.dataset.objectives import MAX_NAMED, MetricProposal, listed
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.trials import At, Direction, Objective

REQUIRED = (
    "run_id",
    "experiment_id",
    "experiment",
    "status",
    "start_time",
    "duration_s",
    "task",
)
QUARANTINE = ("run_id", "experiment", "status", "reason", "detail")
DEFAULT_TASKS = "default"
_SHORT_NAMES = {
    "experiment": "experiment",
    "dataset": "dataset.name",
}  # of columns, in `with_tasks`


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MetaDataset:
    """The frame of this package's docstring, with what the teams said about their metrics.

    Attributes:
        frame: One row a run; finished runs with at least one finite metric.
        failures: The runs that failed, as evidence of what fails: the frame's columns with its
            types. What they have logged of a metric is no value to learn.
        quarantine: The active runs that were read and are not in the frame, with the reason: texts
            `run_id`, `experiment`, `status`, `reason`, `detail`. Those that failed are among them.
        primary: Experiment name -> the objective that its team has set in MLflow, where it has.
        remarks: What was cut, redacted or odd, as sentences.
    """

    frame: pd.DataFrame
    failures: pd.DataFrame = field(default_factory=pd.DataFrame)
    quarantine: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame({name: [] for name in QUARANTINE}, dtype="str")
    )
    primary: Mapping[str, Objective] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        missing = [name for name in REQUIRED if name not in self.frame]
        if missing:
            raise ValueError(f"A meta-dataset needs the columns {missing}.")
        if not len(self.failures.columns):
            object.__setattr__(self, "failures", self.frame.iloc[:0])
        if not self.failures.columns.equals(self.frame.columns):
            odd = self.failures.columns.symmetric_difference(self.frame.columns)
            raise ValueError(
                "The failures need the frame's columns in its order, but differ in "
                f"{list(odd[:MAX_NAMED])}."
            )
        if tuple(self.quarantine.columns) != QUARANTINE:
            raise ValueError(
                f"The quarantine has the columns {QUARANTINE}, but got "
                f"{tuple(self.quarantine.columns)}."
            )

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the order in which they first appear."""
        return [str(task) for task in self.frame["task"].unique()]

    @property
    def quarantined(self) -> dict[str, int]:
        """Reason -> how many runs were read and left out for it, most first."""
        counts = self.quarantine["reason"].value_counts()
        return {str(why): int(n) for why, n in sorted(counts.items(), key=lambda c: (-c[1], c[0]))}

    def metrics(self) -> dict[str, int]:
        """Metric -> how many runs have a finite value of it, most first."""
        return objectives.counts(self.frame)

    def proposals(self) -> list[MetricProposal]:
        """The metrics that could be learned, the one that the data speak for most first.

        Names that differ by split, separator or case alone are one metric; training values are
        another one than those that were held out. A name without a split (`loss`) goes with the
        held-out ones, unless some run has both: then it is most likely the training's.

        Of those that have at least half as many runs as the most frequent one, a metric whose
        direction is known comes first, one that was not measured on the training data, and what a
        training achieved before what it took (`fit_time`). Then the one that most runs have, one
        that is minimised, one whose name says that it was held out.
        """
        return objectives.proposals(self.frame, self.primary)

    def objective(
        self,
        metric: str | Sequence[str] | None,
        direction: Direction | None = None,
        *,
        at: At = "last",
    ) -> Objective:
        """The objective to learn: what was asked, else what the teams have set in MLflow.

        Args:
            metric: A metric's name, or its several spellings: a sequence, or one text with commas
                between them (unless a metric of just that name was logged). The first spelling
                gives the name. None takes the primary metric of the experiments read.
            direction: None takes the experiments' own word, else what the names say.
            at: Which value of the metric's curve counts.

        Raises:
            NothingToLearn: If the metric or its direction can't be told; proposes the metric that
                the data speak for.
        """
        return objectives.choose(self.frame, self.primary, metric, direction, at)

    def trials(self, objective: Objective) -> pd.DataFrame:
        """The runs that have the objective's metric, as trials.

        Returns:
            `run_id`, `experiment`, `task`, `value` (minimised), `duration_s`, and every `params.*`,
            `distribution.*` and context column that is set in at least one of them and does not
            tell the result, see `leakage`; rows in the order of their start. A run's value is the
            first finite one of the objective's spellings. Of its curve the best where the objective
            says so, and where the run's curve was harvested.

        Raises:
            NothingToLearn: If no run has the metric; names the metrics that there are. If the best
                of its curve is asked for, and no curve was harvested.
        """
        return self.trials_and_leaks(objective)[0]

    def trials_and_leaks(self, objective: Objective) -> tuple[pd.DataFrame, list[Leak]]:
        """What `trials` returns; and the params and tags that tell the result, or seem to."""
        values = objectives.values(self.frame, objective)
        kept = np.isfinite(values)
        rows = self.frame[kept]
        read = columns_with(rows, "params.", DISTRIBUTION, *CONTEXT)
        read = [column for column in read if rows[column].notna().any()]
        trials = rows[["run_id", "experiment", "task", "start_time", "duration_s", *read]]
        trials.insert(3, "value", objective.direction.sign * values[kept])
        found = leaks(trials, rows[columns_with(rows, "metrics.")])
        told = [leak.column for leak in found if leak.is_left_out]
        trials = trials.sort_values(["start_time", "run_id"], ignore_index=True)
        return trials.drop(columns=["start_time", *told]), found

    def has(self, objective: Objective) -> bool:
        """Whether a run has the objective's metric, under any of its names."""
        return objectives.has(self.frame, objective)

    def has_curves(self, objective: Objective) -> bool:
        """Whether a curve of the objective's metric was harvested."""
        return objectives.has_curves(self.frame, objective)

    def remarks_on(self, objective: Objective) -> tuple[str, ...]:
        """What is odd about the values of an objective, as sentences."""
        return objectives.remarks_on(self.frame, objective)

    def with_tasks(self, by: str) -> MetaDataset:
        """The same runs, made comparable by something else.

        Args:
            by: `default` for the tasks as harvested; `experiment`; `dataset`, by name and digest
                across experiments; or a column such as `tags.city`. A bare name is looked up in
                params, then in tags. Runs that lack it are a task with their experiment. A param
                that makes tasks is no longer one to choose.

        Raises:
            NothingToLearn: If no run has it; names the params and tags that there are.
        """
        if by == DEFAULT_TASKS:
            return self
        column = self._task_column(by)
        lacking = int(self.frame[column].isna().sum())
        remark = f"{lacking} runs have no {by}: their task is their experiment."
        return replace(
            self,
            frame=_with_task(self.frame, column),
            failures=_with_task(self.failures, column),
            remarks=(*self.remarks, remark) if lacking else self.remarks,
        )

    def task_param(self, by: str) -> str | None:
        """The param whose value a task is under `with_tasks(by)`; None where it is none."""
        column = "" if by == DEFAULT_TASKS else self._task_column(by)
        return column.removeprefix("params.") if column.startswith("params.") else None

    def _task_column(self, by: str) -> str:
        """The column that `by` means, which is set in some run."""
        if by in _SHORT_NAMES:
            tried = [_SHORT_NAMES[by]]
        else:
            tried = [by] if by.startswith(("params.", *CONTEXT)) else []
            tried += [f"params.{by}", f"tags.{by}"]
        for column in tried:
            if column in self.frame and self.frame[column].notna().any():
                return column
        there = [
            column
            for column in columns_with(self.frame, "params.", "tags.")
            if self.frame[column].notna().any()
        ]
        raise NothingToLearn(
            f"No run has {by!r}, which is to say its task. Tasks can be by default, experiment, "
            f"dataset{', ' if there else ''}{listed(there)}."
        )

    def only(self, experiment_names: Sequence[str]) -> MetaDataset:
        """The part that comes from some experiments; all of it if none is named.

        Raises:
            NothingToLearn: If none of the runs is from one of them; names those that there are.
        """
        if not experiment_names:
            return self
        harvested = set(self.frame["experiment"])
        if missing := [name for name in experiment_names if name not in harvested]:
            raise NothingToLearn(self._why_missing(missing[0]))
        names = list(experiment_names)
        return replace(
            self,
            frame=self.frame[self.frame["experiment"].isin(names)],
            failures=self.failures[self.failures["experiment"].isin(names)],
            quarantine=self.quarantine[self.quarantine["experiment"].isin(names)],
            primary={name: o for name, o in self.primary.items() if name in names},
        )

    def _why_missing(self, experiment: str) -> str:
        left_out = self.quarantine.loc[self.quarantine["experiment"] == experiment, "reason"]
        if len(left_out):
            why = ", ".join(f"{n} {reason}" for reason, n in left_out.value_counts().items())
            return f"Nothing can be learned from the runs of the experiment {experiment!r}: {why}."
        return (
            f"The harvest has no run of the experiment {experiment!r}; it has "
            f"{listed(sorted(set(self.frame['experiment'])))}. Run `mlflow-meta harvest -e "
            f"{shlex.quote(experiment)}`."
        )

    # As a file

    def to_parquet(self) -> bytes:
        """The whole meta-dataset as one parquet file; equal ones give equal bytes.

        The runs of `frame` come first, then those of `failures`, which their status tells apart.
        """
        others = [str(name) for name in self.frame.columns if name not in REQUIRED]
        notes = {
            "primary": {name: o.to_dict() for name, o in self.primary.items()},
            "remarks": list(self.remarks),
            "n_trials": len(self.frame),
        }
        frames = [part[[*REQUIRED, *others]] for part in (self.frame, self.failures)]
        return parquet.write(frames, beside=self.quarantine, notes=notes)

    @classmethod
    def from_parquet(cls, content: bytes) -> MetaDataset:
        """Inverse of `to_parquet`.

        Raises:
            NothingToLearn: If it is not a file that `to_parquet` of this version has written.
        """
        runs, quarantine, notes = parquet.read(content)
        n_trials = notes["n_trials"]
        return cls(
            frame=runs.iloc[:n_trials],
            failures=runs.iloc[n_trials:].reset_index(drop=True),
            quarantine=quarantine,
            primary={name: Objective.from_dict(o) for name, o in notes["primary"].items()},
            remarks=tuple(notes["remarks"]),
        )


def _with_task(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """`frame` with the texts of a column as tasks; a param that makes them is none any more."""
    given = frame[column].astype(object)
    task = given.map(str).where(given.notna(), frame["experiment"])
    if column == "dataset.name" and "dataset.digest" in frame:
        digest = frame["dataset.digest"].astype(object)
        task = task.where(given.isna() | digest.isna(), task + " " + digest.map(str))
    made = frame.assign(task=task.astype(frame["task"].dtype))
    return made.drop(columns=column) if column.startswith("params.") else made
