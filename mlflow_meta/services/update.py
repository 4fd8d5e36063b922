"""Update: champion + what is new in the newest harvest -> the champion's next version."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow_meta.known import brought_up_to_date, known_to, tasks_of
from mlflow_meta.promotion import Decision, carry_out, decide
from mlflow_meta.store import MlflowStore, descriptions, names, registry
from mlflow_meta.store.model_folder import servable
from mlflow_meta.store.own_runs import TRAININGS, end_abandoned, own_run
from mlflow_meta.trials import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What came of an update.

    Attributes:
        run_id: The run of the new version; that of the old one if nothing was new.
        model_name: The registered model's name.
        version: The new version; the old one if nothing was new.
        champion: The version that is the champion now.
        decision: Why the new version is the champion, or is not; None if nothing was new.
        updated_from: The version that was the champion before.
        objective: What it predicts.
        n_new: How many trials it has learned from that it did not know. With none, no version was
            registered.
    """

    run_id: str
    model_name: str
    version: str
    champion: str
    decision: Decision | None
    updated_from: str
    objective: Objective
    n_new: int


def update(
    store: MlflowStore,
    experiment_name: str,
    *,
    metric: str | None = None,
    model_name: str | None = None,
    promote: bool = False,
) -> Update:
    """Teach the champion the new trials of an experiment, and of the tasks that it knows already.

    Nothing is compared or cross-validated again; for that, train.

    Args:
        store: Where the champion and the harvest are.
        experiment_name: Whose tasks are learned from, also if the champion does not know them yet.
        metric: What it predicts, as `suggest` takes it; None if there is only one meta-model.
        model_name: The registered model, where it is not our own choice.
        promote: Make it the champion whatever later runs say of it; see `promotion`.

    Raises:
        NoModel: If no meta-model has been trained.
        NothingToLearn: If nothing was harvested, or what was is too little by now.
    """
    old = registry.champion(store, metric=metric, name=model_name)
    known = known_to(store, old)
    new, n_new = brought_up_to_date(old, known, tasks_of(experiment_name, known))
    run_id, version = old.run_id, old.version
    decision: Decision | None = None
    if n_new:
        store.check_may_edit(names.PROJECT_EXPERIMENT)
        registry.reserve(store, new.name, new.objective)
        metric = new.objective.metric
        end_abandoned(store, TRAININGS)
        trials = known.trials[known.trials["task"].isin(list(new.model.scales))]
        note = descriptions.training(
            metric=metric,
            model_name=new.name,
            kind=new.kind,
            n_trials=len(trials),
            n_tasks=trials["task"].nunique(),
            is_update=True,
        )
        tags = {names.KIND: "update", descriptions.NOTE: note}
        with own_run(store, f"update {metric}", tags) as run_id:
            store.log_batch(
                run_id,
                params={
                    "model": new.kind,
                    "metric": metric,
                    "updated_from": old.version,
                    "n_new": n_new,
                    "harvest_run_id": known.harvest_run_id,
                },
            )
            registry.log_training_data(store, run_id, trials, known.harvest_run_id)
            version = registry.register(store, run_id, new.name, servable(new, trials))
            decision = decide(store, new.name, new, trials, by_hand=promote)
            carry_out(store, new.name, version, decision)
    return Update(
        run_id=run_id,
        model_name=new.name,
        version=version,
        champion=old.version if decision and not decision.verdict.is_promoted else version,
        decision=decision,
        updated_from=old.version,
        objective=new.objective,
        n_new=n_new,
    )
