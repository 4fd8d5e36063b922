"""Commands that learn from runs: harvest, space, train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from mlflow_meta.cli import options
from mlflow_meta.cli.options import emit, humane, open_store, read_space, working

# Heavy imports wait inside the commands: `mlflow-meta --help` must answer at once.


@click.command()
@options.sources
@click.option("--all-experiments", is_flag=True, help="Read all experiments; this is the default.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Parquet copy, of a dry run too."
)
@click.option("--list-metrics", is_flag=True, help="Only list the metrics that are logged.")
@options.dry_run
@options.tracking_uri
@options.as_json
@humane
def harvest(  # noqa: PLR0913 - one argument an option
    experiment_names: Sequence[str],
    all_experiments: bool,
    out: Path | None,
    list_metrics: bool,
    dry_run: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Read finished runs into a meta-dataset.

    \b
    Example:
        mlflow-meta harvest -e sweep-7 -e sweep-8 --out runs.parquet
    Next:
        mlflow-meta train --metric val_loss
    """
    if all_experiments and experiment_names:
        raise click.UsageError("Pass either --all-experiments or -e, not both.")
    store = open_store(tracking_uri)
    from mlflow_meta.cli import show
    from mlflow_meta.services.harvest import harvest as run

    with working("reading runs") as say:
        found = run(
            store,
            experiment_names,
            dry_run=dry_run or list_metrics,
            progress=lambda n: say(f"reading runs: {n}"),
        )
    metrics = found.dataset.metrics()
    if out is not None:
        out.write_bytes(found.dataset.to_parquet())
        click.echo(f"Wrote {out}.", err=True)
    if as_json:
        emit(
            {
                "run_id": found.run_id,
                "n_trials": found.n_trials,
                "n_quarantined": found.n_quarantined,
                "quarantined": dict(found.dataset.quarantined),
                "tasks": found.dataset.tasks,
                "metrics": metrics,
            }
        )
        return
    if list_metrics:
        show.table(["metric", "runs"], [[name, n] for name, n in metrics.items()])
        return
    frame = found.dataset.frame
    varied = {task: rows.nunique() for task, rows in frame.groupby("task", sort=False)}
    show.table(
        ["task", "runs", "varied params", "metrics"],
        [
            [
                task,
                int((frame["task"] == task).sum()),
                int(sum(n > 1 for c, n in counts.items() if str(c).startswith("params."))),
                int(sum(n > 0 for c, n in counts.items() if str(c).startswith("metrics."))),
            ]
            for task, counts in varied.items()
        ],
    )
    left = ", ".join(f"{n} {reason}" for reason, n in found.dataset.quarantined.items())
    click.echo(f"{found.n_trials} trials{f'; left out: {left}' if left else ''}.", err=True)
    if metrics:
        known = ", ".join(f"{name} ({n})" for name, n in list(metrics.items())[:8])
        click.echo(f"Next: mlflow-meta train --metric NAME, one of: {known}", err=True)


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
    from mlflow_meta.space import InferredSpace, infer

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
        click.echo(f"Wrote {out}: edit it, then pass it with --space {out}.", err=True)
    if as_json:
        emit(
            {
                "parameters": inferred.space.to_dict(),
                "left_out": dict(inferred.left_out),
                "n_configs": inferred.space.n_configs,
            }
        )
    elif out is None:
        click.echo(inferred.to_yaml(), nl=False)


@click.command()
@options.metric
@options.direction
@options.sources
@options.space_file
@click.option("--harvest-run", metavar="RUN_ID", help="Which harvest; the newest by default.")
@click.option(
    "--model-name", metavar="NAME", help="Registered model; mlflow-meta-METRIC by default."
)
@options.tracking_uri
@options.as_json
@humane
def train(  # noqa: PLR0913 - one argument an option
    metric: str | None,
    direction: str | None,
    experiment_names: Sequence[str],
    space_path: Path | None,
    harvest_run: str | None,
    model_name: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Train meta-models on the newest harvest; register the best as champion.

    \b
    Example:
        mlflow-meta train --metric rmse
    Next:
        mlflow-meta suggest -e sweep-7
    """
    given = read_space(space_path)
    store = open_store(tracking_uri)
    from mlflow_meta.cli import show
    from mlflow_meta.services.train import train as run

    with working("reading the harvest") as say:
        done = run(
            store,
            metric=metric,
            direction=options.read_direction(direction),
            experiment_names=experiment_names,
            space=given,
            harvest_run_id=harvest_run,
            model_name=model_name,
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
                "n_trials": done.n_trials,
                "n_tasks": done.n_tasks,
                "n_features": done.n_features,
                "has_signal": done.has_signal,
                "left_out": done.left_out,
                "candidates": done.table.to_dict("records"),
            }
        )
        return
    show.table(
        ["model", "rmse (average: 1)", "spearman", "spearman, new task"],
        [list(row) for row in done.table.itertuples(index=False)],
    )
    click.echo(
        f"Learned to {done.objective.direction.value} {done.objective.metric} from "
        f"{done.n_trials} trials of {done.n_tasks} tasks, {done.n_features} features; scores are "
        "on held-out trials."
    )
    click.echo(f"Registered {done.model_name} version {done.version}, alias champion.")
    if not done.has_signal:
        click.echo(
            "It could not tell good from bad on held-out trials: until more runs are known, "
            "suggestions only cover the search space evenly.",
            err=True,
        )
    click.echo("Next: mlflow-meta suggest -e EXPERIMENT", err=True)
