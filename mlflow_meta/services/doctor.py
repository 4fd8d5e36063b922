"""Doctor: can we work with this server, and what could be learned from it?"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import pandas as pd

from mlflow_meta.dataset import MetaDataset, MetricProposal
from mlflow_meta.errors import NothingToLearn, StoreError
from mlflow_meta.models import MIN_TRIALS
from mlflow_meta.space import infer
from mlflow_meta.store import MlflowStore
from mlflow_meta.trials import Objective

MAX_ASKED = 50  # experiments of which it is asked whether they may be written to


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        ok: Whether it is as it should be.
        finding: What was found and, if it is not as it should be, what to do.
    """

    name: str
    ok: bool
    finding: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What the doctor found.

    Attributes:
        checks: Connection, versions, permissions.
        experiments: What can be learned, one row an experiment: `experiment`, `runs` (finished,
            with a metric), `metrics` (the most frequent ones with their counts), `varied` (how many
            params), `primary` (the metric that the team has set), `advice`.
        quarantined: Reason -> how many runs teach nothing for it.
        proposals: The metrics that could be learned from all of it, the best first.
    """

    checks: list[Check]
    experiments: pd.DataFrame
    quarantined: dict[str, int]
    proposals: list[MetricProposal]

    @property
    def ok(self) -> bool:
        """Whether every check is as it should be."""
        return all(check.ok for check in self.checks)


def doctor(
    store: MlflowStore, *, dry_run: bool = False, progress: Callable[[int], None] = lambda _: None
) -> Examination:
    """Examine a tracking store.

    Args:
        store: Which.
        dry_run: Do not try to write. Otherwise the project's own experiment gets a tag.
        progress: Called with how many runs have been read so far.
    """
    checks = [
        Check(name="connection", ok=True, finding=store.shown_uri),
        Check(
            name="versions",
            ok=True,
            finding=f"mlflow-meta {version('mlflow-meta')}, MLflow {version('mlflow')} here and "
            f"{store.server_version()} on the server, Python {platform.python_version()}",
        ),
        _may_write(store, dry_run),
    ]
    dataset = store.read(progress=progress)
    n_experiments = dataset.frame["experiment"].nunique()
    checks.append(
        Check(
            name="may read",
            ok=len(dataset) > 0,
            finding=f"{len(dataset)} finished runs with a metric in "
            f"{n_experiments} experiment{'' if n_experiments == 1 else 's'}"
            + ("" if len(dataset) else "; train a few runs that log params and a metric first"),
        )
    )
    if len(dataset) and not dry_run:
        checks.append(_may_suggest(store, sorted(dataset.frame["experiment"].unique())))
    rows = [
        _examine(str(name), frame, dataset.primary.get(str(name)))
        for name, frame in dataset.frame.groupby("experiment", sort=True)
    ]
    return Examination(
        checks=checks,
        experiments=pd.DataFrame(
            rows, columns=["experiment", "runs", "metrics", "varied", "primary", "advice"]
        ),
        quarantined=dataset.quarantined,
        proposals=dataset.proposals(),
    )


def _may_write(store: MlflowStore, dry_run: bool) -> Check:
    if dry_run:
        return Check(name="may write", ok=True, finding="not tried (--dry-run)")
    try:
        store.try_writing()
    except StoreError as error:
        return Check(name="may write", ok=False, finding=str(error))
    return Check(name="may write", ok=True, finding="yes, tried on the experiment mlflow-meta")


def _may_suggest(store: MlflowStore, experiment_names: Sequence[str]) -> Check:
    """Whether the user may write to experiments; one will do, and nothing is written."""
    asked = experiment_names[:MAX_ASKED]
    refusals = []
    for name in asked:
        try:
            store.check_may_edit(name)
        except StoreError as error:
            refusals.append(str(error))
    n_may = len(asked) - len(refusals)
    finding = f"in {n_may} of {len(asked)} experiments" if refusals else "in each experiment"
    if len(asked) < len(experiment_names):
        finding += f" of the first {len(asked)}"
    return Check(name="may suggest", ok=n_may > 0, finding=". ".join([finding, *refusals[:1]]))


def _examine(name: str, frame: pd.DataFrame, primary: Objective | None) -> dict[str, object]:
    dataset = MetaDataset(frame=frame, primary={name: primary} if primary else {})
    metrics = {metric: n for metric, n in dataset.metrics().items() if n}
    proposals = dataset.proposals()  # none where nothing but predictions was logged
    most = max((p.n_runs for p in proposals[:1]), default=0)
    if primary:
        most = metrics.get(primary.metric, 0)
    try:
        varied = len(infer(dataset.frame).space.names)
    except NothingToLearn:
        varied = 0
    if not varied:
        advice = "no param varies: nothing to learn"
    elif most < MIN_TRIALS:
        advice = f"train {MIN_TRIALS - most} more runs, or learn from it together with others"
    elif primary:
        advice = f"mlflow-meta train -e {shlex.quote(name)} --metric {shlex.quote(primary.metric)}"
    else:
        advice = proposals[0].command([name])
    return {
        "experiment": name,
        "runs": len(dataset),
        "metrics": ", ".join(f"{metric} ({n})" for metric, n in list(metrics.items())[:4]),
        "varied": varied,
        "primary": primary.metric if primary else "",
        "advice": advice,
    }
