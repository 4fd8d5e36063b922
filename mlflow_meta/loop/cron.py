"""Cycle: what cron does of the loop: all of it but the work."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mlflow_meta.cluster import Cluster
from mlflow_meta.dataset import DEFAULT_TASKS
from mlflow_meta.effort import ANY, Limits
from mlflow_meta.errors import Damaged, NoModel, TooLittle
from mlflow_meta.loop.tuning import metrics_meant
from mlflow_meta.services.explore import explore
from mlflow_meta.services.harvest import Harvest, harvest
from mlflow_meta.services.monitor import Monitored, monitor
from mlflow_meta.services.promote import Promotion, promote
from mlflow_meta.services.suggest import suggest
from mlflow_meta.services.train import Training, train
from mlflow_meta.space import SearchSpace, Verdict, decision_of, narrowed
from mlflow_meta.store import MlflowStore, Registered, names, registry
from mlflow_meta.store.contract import Record
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.queue import began_ms, is_rejected, waiting
from mlflow_meta.store.suggested import suggested_runs, undecided_in
from mlflow_meta.trials import At, Direction, Objective, Suggestions

_UNTIMED = (
    "Without a meta-model nothing tells how long a run takes: these may exceed the limits of time."
)
MIN_FAILED = 3  # suggested runs in a row: where they have all failed, no more are added


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """What one cycle did.

    Attributes:
        harvest: What it read.
        monitored: What the suggestions so far have brought.
        promotion: Whether the champion has drifted, or gave way; None where there was none.
        training: The new version; None where nothing was new, or runs were too few.
        suggestions: What waits for workers now; None where enough did before, or where those that
            ended last have all failed.
        n_waiting: How many runs were waiting before.
        remarks: What was left out, and why, as sentences.
    """

    harvest: Harvest
    monitored: Sequence[Monitored]
    promotion: Promotion | None
    training: Training | None
    suggestions: Suggestions | None
    n_waiting: int
    remarks: tuple[str, ...]


def cycle(  # noqa: PLR0913 - each is a choice of its own
    store: MlflowStore,
    experiment_name: str,
    *,
    n: int = 5,
    metric: str | Sequence[str] | None = None,
    direction: Direction | None = None,
    at: At = "last",
    tasks_by: str = DEFAULT_TASKS,
    learn_from: Sequence[str] = (),
    space: SearchSpace | None = None,
    where: Sequence[str] = (),
    limits: Limits = ANY,
    kinds: Sequence[str] = (),
    cluster: Cluster | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Cycle:
    """Harvest, monitor, promote, train and suggest, so that `n` suggestions wait for workers.

    What may be left out is: training where no run is new to the version that was registered last,
    and suggesting where `n` runs wait already, or where the suggested runs that ended last, at
    least `MIN_FAILED` and `n`, have all failed. While runs are too few for a meta-model, what is
    suggested covers the search space evenly. It may be killed anywhere, and overlap with others.

    Args:
        store: Where the runs are.
        experiment_name: The experiment to improve.
        n: How many suggestions are to wait.
        metric: As `tune` takes it, and all others too.
        direction: Which values are better.
        at: Which value of the metric's curve counts.
        tasks_by: What makes runs comparable.
        learn_from: Names of the experiments to learn from beside it; none for all of the server.
        space: Where to search; None to infer it from the experiment's runs.
        where: Conditions that narrow the space.
        limits: How long the suggestions that are added may take, and on what hardware. Without a
            meta-model they are not kept to, which a remark says.
        kinds: Kinds of meta-model to compare, as `train` takes them.
        cluster: Where runs are read, meta-models compared and spaces searched; None for here.
        progress: Called with what is being done.

    Raises:
        MetaError: As the services do.
    """
    if space is not None:
        narrowed(space, where)  # so that a wrong condition shows before anything is done
    store.check_may_edit(experiment_name)
    executor = cluster.executor if cluster else None
    sources = [*learn_from, experiment_name] if learn_from else ()
    progress("harvesting")
    found = harvest(
        store, sources, curves=metrics_meant(metric) if at == "best" else (), executor=executor
    )
    monitored = monitor(store, progress=progress)
    remarks: list[str] = []
    promotion, training = None, None
    dataset = found.dataset.with_tasks(tasks_by)
    objective = dataset.objective(metric, direction, at=at)
    name = registry.model_name(objective.metric)
    try:
        promotion = promote(store, model_name=name, progress=progress)
    except NoModel:
        progress("training the first meta-model")
    except Damaged as error:
        remarks.append(str(error))
    newest = registry.challenger(store, name) if promotion else None
    if (
        newest
        and _answers(newest, objective, tasks_by)
        and not newest.model.n_unseen(dataset.trials(objective))
    ):
        remarks.append("No run is new to the meta-model: nothing was trained.")
    else:
        try:
            training = train(
                store, metric=metric, direction=direction, at=at, tasks_by=tasks_by, kinds=kinds,
                model_name=name, executor=executor, progress=progress,
            )  # fmt: skip
        except TooLittle as error:
            remarks.append(str(error))
    ledger = Ledger.known(store, store.experiment_id(experiment_name))
    n_waiting = _n_open(ledger) if ledger else 0
    before = suggested_runs(store, experiment_name)
    taken = _taken(before)
    failed = _failed_last(taken, max(n, MIN_FAILED))
    # As many taken ask the same, whoever asks; one more asks for others, if nothing was learned.
    rng = np.random.default_rng(len(taken)) if taken else None
    suggestions = None
    if n_waiting >= n or failed:
        remarks += undecided_in(before)
    if n_waiting >= n:
        remarks.append(f"{n_waiting} suggestions wait already: none was added.")
    elif failed:
        remarks.append(_stopped(failed, experiment_name))
    elif promotion or training:
        suggestions = suggest(
            store, experiment_name, n=n - n_waiting, model_name=name, space=space, where=where,
            limits=limits, spread=cluster.spread if cluster else None, rng=rng, progress=progress,
        )  # fmt: skip
    else:
        remarks += [_UNTIMED] if limits.is_any else []
        suggestions = explore(
            store, experiment_name, n=n - n_waiting, metric=metric, direction=direction,
            space=space, where=where, rng=rng,
        )  # fmt: skip
    return Cycle(
        harvest=found,
        monitored=monitored,
        promotion=promotion,
        training=training,
        suggestions=suggestions,
        n_waiting=n_waiting,
        remarks=tuple(remarks),
    )


def _n_open(ledger: Ledger) -> int:
    """How many suggestions wait that a worker may take: what was rejected is not among them."""
    verdicts = [decision_of(run.tags).verdict for run in waiting(ledger)]
    return sum(verdict is not Verdict.REJECTED for verdict in verdicts)


def _taken(before: Sequence[Record]) -> list[Record]:
    """The suggested runs that wait no longer or in vain, those that began first first."""
    records = [
        record
        for record in before
        if record.status != "SCHEDULED" or names.CLAIM in record.params or is_rejected(record)
    ]
    return sorted(records, key=began_ms)


def _failed_last(taken: Sequence[Record], n: int) -> list[Record]:
    """The last `n` that have ended by themselves, where all of them have failed; or none."""
    last = [record for record in taken if record.status in ("FINISHED", "FAILED")][-n:]
    failed = [record for record in last if record.status == "FAILED"]
    return failed if len(failed) == n else []


def _stopped(failed: Sequence[Record], experiment_name: str) -> str:
    """Why nothing is scheduled, and what to do, as a sentence."""
    command = f"mlflow-meta suggest -e {shlex.quote(experiment_name)}"
    return (
        f"The last {len(failed)} suggested runs have all failed, so none was added: is it the "
        f"program or the server? See {names.LOG_FILE} of run {failed[-1].run_id}. When that is "
        f"mended, `{command}` schedules some to try; once one finishes, cycle goes on."
    )


def _answers(version: Registered, objective: Objective, tasks_by: str) -> bool:
    """Whether a version was trained for just this question."""
    return (version.objective, version.tasks_by) == (objective, tasks_by)
