"""The tools: typed arguments in, one service call, a result with a schema out.

An error about the world (`MetaError`) or about an argument (`ValueError`) is told in our words, for
the assistant to act on; any other one is a bug, of which it is told no more than that.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

import numpy as np
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from mlflow_meta.errors import MetaError
from mlflow_meta.mcp import results
from mlflow_meta.mcp.results import known, sought
from mlflow_meta.services.best import best
from mlflow_meta.services.explain import explain
from mlflow_meta.services.overview import overview
from mlflow_meta.services.predict import predict
from mlflow_meta.services.suggest import suggest
from mlflow_meta.space.narrow import asked
from mlflow_meta.store import MlflowStore
from mlflow_meta.subsets import folded
from mlflow_meta.trials import ConfigValue, Direction, Suggestions

MAX_N = 100  # configurations in one call: more would flood who reads them

ExperimentName = Annotated[str, Field(description="Name of an MLflow experiment")]
Metric = Annotated[
    str | None,
    Field(description="Metric of the meta-model; needed where `experiments` lists several models"),
]
Task = Annotated[
    str | None, Field(description="Which task, where the experiment has several data sets")
]
N = Annotated[int, Field(ge=1, le=MAX_N, description="How many")]
Where = Annotated[
    list[str],
    Field(
        description="Conditions on params that narrow the search: 'model=mlp,tree', 'model!=mlp', "
        "'lr=1e-4..1e-2', 'lr<0.01'"
    ),
]
SearchS = Annotated[
    float, Field(gt=0, le=600, description="Seconds that the search may take; it may end sooner")
]
P = ParamSpec("P")
R = TypeVar("R")


def told(tool: Callable[P, R]) -> Callable[P, R]:
    """A tool whose expected errors reach the assistant in our words."""

    @functools.wraps(tool)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return tool(*args, **kwargs)
        except (MetaError, ValueError) as error:
            raise ToolError(str(error)) from error

    return wrapper


class Tools:
    """What an assistant can do with a store, one call at a time."""

    def __init__(self, open_store: Callable[[], MlflowStore]) -> None:
        """Takes what opens the store; it is called at the first use, and again where it failed."""
        self._open = open_store
        self._opened: MlflowStore | None = None
        self._lock = threading.Lock()  # a client may send calls side by side

    @told
    def experiments(self) -> results.Experiments:
        """List what can be asked about: experiments with their tasks, varied params and metrics.

        Also the trained meta-models with the metric that each predicts. Start here.
        """
        with self._lock:
            found = overview(self._store())
        return results.Experiments(
            experiments=[
                results.Experiment(
                    name=one.name,
                    n_trials=one.n_trials,
                    tasks=list(one.tasks),
                    varied_params=list(one.varied),
                    metrics=dict(one.metrics),
                )
                for one in found.experiments
            ],
            models=[results.Model(name=name, metric=m) for name, m in found.models.items()],
        )

    @told
    def best(
        self,
        experiment: ExperimentName,
        n: N = 5,
        metric: Annotated[
            str | None, Field(description="By default the experiment's primary metric")
        ] = None,
        direction: Annotated[
            Literal["minimize", "maximize"] | None,
            Field(description="Which values are better, where the metric's name does not tell"),
        ] = None,
        task: Task = None,
    ) -> results.Best:
        """Show the best finished runs of an experiment: their params and what they got."""
        with self._lock:
            side = Direction(direction) if direction else None
            found = best(self._store(), experiment, n=n, metric=metric, direction=side, task=task)
        return results.Best(
            **sought(found.objective),
            n_trials=found.n_trials,
            median=found.median,
            trials=[
                results.Trial(
                    run_id=one.run_id,
                    task=one.task,
                    value=one.metric,
                    params=folded(one.config),
                    duration_s=known(one.duration_s),
                )
                for one in found.trials
            ],
        )

    @told
    def predict(
        self,
        experiment: ExperimentName,
        configs: Annotated[
            list[dict[str, ConfigValue]],
            Field(
                min_length=1,
                max_length=MAX_N,
                description="Configurations, each as param -> value; params that are left out are "
                "taken as unset and told in `warning`",
            ),
        ],
        metric: Metric = None,
        task: Task = None,
    ) -> results.Predictions:
        """Predict what configurations would get, without training them.

        Answers with intervals, the chance to beat the best run, the expected duration, and reasons.
        """
        with self._lock:
            found = predict(self._store(), experiment, configs, metric=metric, task=task)
        fields = results.Prediction.model_fields
        return results.Predictions(
            **sought(found.objective),
            task=found.task,
            model=found.model,
            has_signal=found.has_signal,
            unknown_params=list(found.unknown),
            predictions=[
                results.Prediction(**{name: row[name] for name in fields})
                for row in found.answers.to_dict("records")
            ],
        )

    @told
    def suggest(
        self,
        experiment: ExperimentName,
        n: N = 5,
        metric: Metric = None,
        task: Task = None,
        where: Where = [],  # noqa: B006 - read only; the schema needs the default as it is
        search_s: SearchS = 10.0,
    ) -> results.Suggestions:
        """Search for the configurations to train next, the best first. Writes nothing.

        None of them was run or suggested before.
        """
        return self._suggested(
            experiment, dry_run=True, n=n, metric=metric, task=task, where=where, search_s=search_s
        )

    @told
    def schedule(
        self,
        experiment: ExperimentName,
        n: N = 5,
        metric: Metric = None,
        task: Task = None,
        where: Where = [],  # noqa: B006 - read only; the schema needs the default as it is
        search_s: SearchS = 10.0,
    ) -> results.Suggestions:
        """Search as `suggest` does, and write what is found as SCHEDULED runs into the experiment.

        Workers (`mlflow-meta work`) then train them. Asked again before anything new was learned,
        it tells the same runs and schedules none twice.
        """
        return self._suggested(
            experiment, dry_run=False, n=n, metric=metric, task=task, where=where, search_s=search_s
        )

    @told
    def explain(
        self, experiment: ExperimentName, metric: Metric = None, task: Task = None
    ) -> results.Explanation:
        """Explain which params matter for an experiment, and what each of them does."""
        with self._lock:
            found = explain(self._store(), experiment, metric=metric, task=task)
        return results.Explanation(
            **sought(found.objective),
            task=found.task,
            model=found.model,
            n_trials=found.n_trials,
            has_signal=found.has_signal,
            sentence=found.sentence,
            importance=[
                results.Importance(
                    param=row["param"],
                    permutation=known(row["permutation"]),
                    ped_anova=known(row["ped_anova"]),
                    n_runs=row["n"],
                )
                for row in found.importance.to_dict("records")
            ],
            partial_dependence={
                name: [
                    results.Point(**{str(key): _plain(value) for key, value in row.items()})
                    for row in curve.to_dict("records")
                ]
                for name, curve in found.curves.items()
            },
        )

    def _suggested(
        self, experiment: str, *, dry_run: bool, where: Sequence[str], **how: Any
    ) -> results.Suggestions:
        for condition in where:
            asked(condition)  # says how conditions are written
        with self._lock:
            store = self._store()
            found = suggest(store, experiment, dry_run=dry_run, where=where, **how)
        return _suggestions(found)

    def _store(self) -> MlflowStore:
        if self._opened is None:
            self._opened = self._open()
        return self._opened


def _suggestions(found: Suggestions) -> results.Suggestions:
    run_ids: list[str | None] = [*found.run_ids] or [None] * len(found.items)
    return results.Suggestions(
        **sought(found.objective),
        task=found.task,
        model=found.model,
        has_signal=found.has_signal,
        best_so_far=known(found.best_so_far),
        search=found.searched.sentence if found.searched else None,
        remarks=list(found.remarks),
        suggestions=[
            results.Suggestion(
                rank=one.rank,
                params=folded(one.config),
                predicted=one.mean,
                low_80=one.low,
                high_80=one.high,
                run_id=run_id,
            )
            for one, run_id in zip(found.items, run_ids, strict=True)
        ],
    )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
