"""Suggest: champion + search space -> ranked SCHEDULED runs in the target experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np

from mlflow_meta.effort import ANY, Limits
from mlflow_meta.errors import StoreRefused
from mlflow_meta.known import known_to, space_of, task_of
from mlflow_meta.scheduling import (
    Decision,
    check_may_schedule,
    heeded,
    published,
    scheduled_once,
    seed_of,
    swept_ledger,
    told,
)
from mlflow_meta.search import Spread
from mlflow_meta.services.suggest.drawings import drawings
from mlflow_meta.services.suggest.others import others_of
from mlflow_meta.services.suggest.records import about_of, compare, digest_of
from mlflow_meta.services.suggest.search import Asked, check_hardware, search
from mlflow_meta.services.suggest.words import items_of, lineage_tags
from mlflow_meta.space import SearchSpace, narrowed
from mlflow_meta.space.narrow import asked
from mlflow_meta.store import MlflowStore, names, plans, registry
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.suggested import configs_of, suggested_runs, undecided_in
from mlflow_meta.trials import Suggestions


def suggest(  # noqa: PLR0913 - each is a choice of its own
    store: MlflowStore,
    experiment_name: str,
    *,
    n: int = 5,
    metric: str | None = None,
    task: str | None = None,
    space: SearchSpace | None = None,
    where: Sequence[str] = (),
    model_name: str | None = None,
    dry_run: bool = False,
    limits: Limits = ANY,
    also: Sequence[str] = (),
    search_s: float | None = None,
    spread: Spread | None = None,
    rng: np.random.Generator | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Suggestions:
    """Search for the `n` most promising configurations, and schedule them as runs.

    Who asks the same again, of the same champion and trials, or at the same time, gets the same
    suggestions and the same runs. What somebody has begun to schedule and left is finished first.

    Args:
        store: Where the champion is, and the runs go.
        experiment_name: The target experiment; it must exist, but may have no runs yet.
        n: How many.
        metric: What to improve, by the name that it has been learned under (of several spellings,
            with commas, the first); None if there is only one meta-model.
        task: Which task of the experiment, where its runs have several data sets.
        space: Where to search; None for what the target's own trials have varied, or, where they
            are too few, the trials that the champion has learned from.
        where: Conditions that narrow the space, as `space.narrowed` takes them; what is searched
            for is then the best of this part.
        model_name: The registered model, where it is not our own choice.
        dry_run: Search, and write nothing.
        limits: How long the runs may take, and on what hardware they are supposed to run.
        also: Further objectives: `duration`, or metrics as `model_size` or `auc:maximize`. Then
            suggestions are of the Pareto front, and `limits` may only suppose hardware.
        search_s: Seconds that the search of a model with a formula may take; 10 if None. It ends
            sooner where it has proven that nothing better is predicted.
        spread: Searches on the workers of a cluster, see `cluster.Cluster`; None for here.
        rng: Equal generators ask the same, others for other suggestions; None: what is asked
            decides.
        progress: Called with where the search stands, in words.

    Raises:
        NoModel: If no meta-model has been trained.
        NothingToLearn: If the experiment does not exist, or it is not clear which task is meant.
        BadSpace: If nothing of the space is left.
        Exhausted: If every configuration has been run or suggested, or would take too long.
        TooLittle: If time is asked about, and too few runs say how long they took.
        NoPermission: If the user may not write to the experiment; nothing was written.
    """
    if not dry_run:
        check_may_schedule(store, experiment_name)
    champion = registry.champion(store, metric=metric, name=model_name)
    known = known_to(store, champion)
    task = task or task_of(experiment_name, known)
    if space is None:
        space = space_of(known, task, champion.model, varied=[asked(c)[0] for c in where])
    if also and limits.is_any:
        raise ValueError("With further objectives a limit of time is none: `duration` is one.")
    others_of(also, known)
    check_hardware(limits.hardware, known.trials)
    narrowed(space, where)  # so that a wrong condition shows before anything is done
    progress("looking what is scheduled already")
    ledger = swept_ledger(store, experiment_name, dry_run=dry_run)
    before = suggested_runs(store, experiment_name)
    space, refused, remarks = heeded(store, space, before, dry_run=dry_run)
    question = {
        "experiment": store.experiment_id(experiment_name),
        "model": f"{champion.name}/{champion.version}",
        "trials": digest_of(known),
        "task": task,
        "n": n,
        "space": space.to_dict(),
        "where": list(where),
        "rejected": [dict(rejection.config) for rejection in refused],
        "limits": limits.to_dict(),
        "also": list(also),
        "search_s": search_s,
        **seed_of(rng),
    }

    def decide(seed: int) -> Decision:
        it = Asked(
            experiment_name=experiment_name,
            champion=champion,
            known=known,
            task=task,
            n=n,
            space=space,
            where=where,
            seed=seed,
            limits=limits,
            also=also,
            search_s=search_s,
            suggested=configs_of(before),
            remarks=remarks,
        )
        found = search(it, spread, progress)
        return Decision(
            items=items_of(it, found),
            about=about_of(it, found),
            tags=lineage_tags(champion),
            draw=lambda: drawings(it, found, datetime.now(timezone.utc)),
        )

    found = scheduled_once(store, ledger, question, decide, dry_run=dry_run, progress=progress)
    return replace(found, remarks=(*undecided_in(before), *found.remarks))


def suggest_again(
    store: MlflowStore,
    run_id: str,
    *,
    dry_run: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Suggestions:
    """Search once more as a suggestion was searched for, and see that the same is found.

    The meta-model, the meta-dataset, the space and the random numbers are those of then. What was
    not scheduled of it, because somebody has died, is scheduled.

    Args:
        store: Where it is.
        run_id: A suggested run, or the run of kind `suggest` of its batch.
        dry_run: Search, and write nothing.
        progress: Called with where the search stands, in words.

    Raises:
        StoreRefused: If it is no such run.
        NotReproduced: If something else is found; says what differs.
    """
    record = store.get_run(run_id)
    plan_id = record.tags.get(names.SUGGEST_RUN, run_id)
    plan = plans.read(store, plan_id)
    about = plan.about
    if "champion" not in about:
        raise StoreRefused(
            f"The suggestions of {plan_id} were made without a meta-model (`suggest --explore`): "
            "there is no search to repeat."
        )
    champion = registry.version_of(store, *about["champion"])
    it = Asked(
        experiment_name=about["experiment_name"],
        champion=champion,
        known=known_to(store, champion, about["harvest_run_id"]),
        task=about["task"],
        n=about["n"],
        space=SearchSpace.from_dict(about["space"]),
        where=about["where"],
        seed=about["seed"],
        search_s=about["search_s"],
        limits=Limits(**about["limits"]),
        also=about["also"],
        suggested=about["suggested"],
    )
    found = search(it, None, progress)
    compare(plan, found)
    if dry_run:
        return told(about, is_repeated=True)
    ledger = Ledger.of(store, plan.experiment_id)
    return published(store, ledger, plan, is_repeated=True, progress=progress)
