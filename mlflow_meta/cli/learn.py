"""Commands that learn from runs: harvest, space, train."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_meta.cli import options, running
from mlflow_meta.cli.lock import alone
from mlflow_meta.cli.reading import read_direction, read_space
from mlflow_meta.cli.running import REFUSED, emit, humane, on_cluster, open_store, working
from mlflow_meta.cli.terminal import echo

if TYPE_CHECKING:
    from mlflow_meta.trials import At

# Heavy imports wait inside the commands: `mlflow-meta --help` must answer at once.

KINDS = (
    "linear",
    "network",
    "lightgbm",
    "extra_trees",
    "gaussian_process",
    "blend",
    "transfer",
)  # those of `models.ZOO`, whose import is heavy


@click.command()
@options.sources
@click.option("--all-experiments", is_flag=True, help="Read all experiments; this is the default.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Parquet copy, of a dry run too."
)
@click.option(
    "--curves",
    multiple=True,
    metavar="PATTERN",
    help="Metrics whose whole curves are read, such as 'val_*'; repeat for several. With "
    "--out runs.parquet, their points go to runs.curves.parquet.",
)
@click.option("--list-metrics", is_flag=True, help="Only list the metrics that are logged.")
@click.option("--full", is_flag=True, help="Read all runs, also those that seem unchanged.")
@click.option(
    "--tag",
    "tags",
    multiple=True,
    default=("*",),
    metavar="PATTERN",
    help="Tags to learn from, such as 'team_*'; repeat for several. All by default.",
)
@options.no_lock
@options.dask
@click.option("--log-events", is_flag=True, help="Log to standard error, one JSON object a line.")
@options.dry_run
@options.store_uri
@options.tracking_uri
@options.as_json
@humane
def harvest(  # noqa: PLR0913 - one argument an option
    experiment_names: Sequence[str],
    all_experiments: bool,
    out: Path | None,
    curves: Sequence[str],
    list_metrics: bool,
    full: bool,
    tags: Sequence[str],
    no_lock: bool,
    address: str | None,
    log_events: bool,
    dry_run: bool,
    store_uri: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Read runs into a meta-dataset; a second time, only what has changed.

    Safe in cron: while another harvest of the same runs is at work it leaves with exit code 75.

    \b
    Example:
        mlflow-meta harvest -e sweep-7 -e sweep-8 --out runs.parquet
        mlflow-meta harvest --deadline 10m --store-uri postgresql://reader@db/mlflow
        mlflow-meta harvest --curves 'val_*'
    Next:
        mlflow-meta train --metric val_loss
    """
    if all_experiments and experiment_names:
        raise click.UsageError("Pass either --all-experiments or -e, not both.")
    if log_events:
        running.log_events()
    from mlflow_meta.cli import show

    is_alone = dry_run or list_metrics or no_lock
    with nullcontext() if is_alone else alone("harvest", tracking_uri, *experiment_names):
        store = open_store(tracking_uri, database=store_uri)
        from mlflow_meta.services.harvest import harvest as run

        with on_cluster(address) as cluster, working("reading runs") as say:
            found = run(
                store,
                experiment_names,
                full=full,
                tags=tags,
                curves=curves,
                deadline_s=options.given_deadline(),
                dry_run=dry_run or list_metrics,
                executor=cluster.executor if cluster else None,
                progress=lambda n: say(f"reading runs: {n}"),
            )
    metrics = found.dataset.metrics()
    if out is not None:
        out.write_bytes(found.dataset.to_parquet())
        echo(f"Wrote {out}.", err=True)
        if curves:
            beside = out.with_suffix(".curves.parquet")
            found.curves.to_parquet(beside, index=False)
            echo(f"Wrote {beside}.", err=True)
    if as_json:
        emit(
            {
                "run_id": found.run_id,
                "n_trials": found.n_trials,
                "n_quarantined": found.n_quarantined,
                "quarantined": found.dataset.quarantined,
                "n_read": found.n_read,
                "full": found.full,
                "n_points": len(found.curves),
                "remarks": list(found.dataset.remarks),
                "tasks": found.dataset.tasks,
                "metrics": metrics,
            }
        )
        return
    if list_metrics:
        show.table(["metric", "runs"], [[name, n] for name, n in metrics.items()])
        return
    show.harvest(found)


@click.command()
@options.sources
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it here.")
@click.option("--check", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Read this file instead, and show what it means.")  # fmt: skip
@options.tracking_uri
@options.as_json
@humane
def space(
    experiment_names: Sequence[str],
    out: Path | None,
    check: Path | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Infer the search space from the newest harvest, as YAML to edit.

    \b
    Example:
        mlflow-meta space -e sweep-7 --out space.yaml
    Next:
        mlflow-meta suggest -e sweep-7 --space space.yaml
    """
    from mlflow_meta.space import InferredSpace, SearchSpace, infer

    given = read_space(check)
    if given is not None:
        inferred = InferredSpace(given, {})
    else:
        store = open_store(tracking_uri)
        with working("reading the newest harvest"):
            _, dataset = store.dataset()
            inferred = infer(dataset.only(experiment_names).frame)
    if out is not None:
        out.write_text(inferred.to_yaml(), encoding="utf-8")
        echo(f"Wrote {out}: edit it, then pass it with --space {out}.", err=True)
    if as_json:
        emit(
            {
                "parameters": SearchSpace(inferred.space.params).to_dict(),
                "constraints": [constraint.text for constraint in inferred.space.constraints],
                "remarks": dict(inferred.remarks),
                "left_out": dict(inferred.left_out),
                "n_configs": inferred.space.n_configs,
            }
        )
    elif out is None:
        echo(inferred.to_yaml().rstrip("\n"))


@click.command()
@options.metric
@options.direction
@options.at
@options.tasks_by
@options.sources
@options.space_file
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help="Compare only this kind of meta-model; repeat for several. All by default. The first four "
    "are formulas, of which `suggest` can prove that nothing is predicted better.",
)
@click.option("--harvest-run", metavar="RUN_ID", help="Which harvest; the newest by default.")
@click.option(
    "--model-name", metavar="NAME", help="Registered model; mlflow-meta-METRIC by default."
)
@click.option("--promote", is_flag=True,
              help="Make it the champion whatever later runs say of it.")  # fmt: skip
@options.dask
@options.tracking_uri
@options.as_json
@humane
def train(  # noqa: PLR0913 - one argument an option
    metric: str | None,
    direction: str | None,
    at: At,
    tasks_by: str,
    experiment_names: Sequence[str],
    space_path: Path | None,
    kinds: Sequence[str],
    harvest_run: str | None,
    model_name: str | None,
    promote: bool,
    address: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Train meta-models on the newest harvest; register the best.

    It becomes the champion where there is none, or where it predicts the runs since then better.

    Exit code 3: too few runs, or none of the models can tell good from bad on held-out ones.

    \b
    Example:
        mlflow-meta train --metric rmse
        mlflow-meta train --metric val_rmse,test_rmse,rmse --tasks-by dataset
        mlflow-meta train --metric val_loss --at best
        mlflow-meta train --metric val_loss --kind lightgbm --kind linear
    Next:
        mlflow-meta suggest -e sweep-7
    """
    given = read_space(space_path)
    store = open_store(tracking_uri)
    from mlflow_meta.cli import show_training
    from mlflow_meta.services.train import train as run

    with on_cluster(address) as cluster, working("reading the harvest") as say:
        done = run(
            store,
            metric=metric,
            direction=read_direction(direction),
            at=at,
            tasks_by=tasks_by,
            experiment_names=experiment_names,
            space=given,
            kinds=kinds,
            harvest_run_id=harvest_run,
            model_name=model_name,
            promote=promote,
            executor=cluster.executor if cluster else None,
            progress=say,
        )
    if as_json:
        emit(
            {
                "run_id": done.run_id,
                "model_name": done.model_name,
                "version": done.version,
                "metric": done.objective.metric,
                "direction": done.objective.direction.value,
                "aliases": list(done.objective.aliases),
                "at": done.objective.at,
                "tasks_by": tasks_by,
                "n_trials": done.n_trials,
                "n_tasks": done.n_tasks,
                "n_features": done.n_features,
                "has_signal": done.has_signal,
                "p_value": done.signal.p_value,
                "n_more": done.signal.n_more,
                "champion": done.champion,
                "verdict": done.decision.verdict.value,
                "left_out": done.left_out,
                "remarks": list(done.remarks),
                "candidates": done.table.to_dict("records"),
            }
        )
    else:
        show_training.training(done)
    if not done.has_signal:
        sys.exit(REFUSED)
