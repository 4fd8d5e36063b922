"""The commands. Each parses, makes one library call, and shows what came of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_meta.cli import options
from mlflow_meta.cli.options import emit, humane, open_store, read_space, working

if TYPE_CHECKING:
    import numpy as np

    from mlflow_meta.store import MlflowStore
    from mlflow_meta.trials import Direction

STDERR = 2  # the number of our standard error, where a training's own output goes

# Heavy imports wait inside the commands: `mlflow-meta --help` must answer at once.


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mlflow-meta")
def main() -> None:
    """Learn from past MLflow runs, and schedule the next ones.

    \b
    First time here:   mlflow-meta demo
    On your server:    mlflow-meta doctor --tracking-uri http://localhost:5000
    """


@main.command()
@options.sources
@click.option("--all-experiments", is_flag=True, help="Read all experiments; this is the default.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Parquet copy.")
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
        click.echo(f"Next: mlflow-meta train --metric {next(iter(metrics))}", err=True)


@main.command()
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


@main.command()
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
            direction=_direction(direction),
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
    click.echo("Next: mlflow-meta suggest -e EXPERIMENT", err=True)


@main.command()
@options.target
@options.count(5)
@options.metric
@click.option("--task", metavar="NAME", help="Which task, where the experiment has several.")
@options.space_file
@click.option(
    "--model-name", metavar="NAME", help="Registered model; mlflow-meta-METRIC by default."
)
@click.option("--seed", type=int, help="Equal seeds give equal suggestions.")
@options.dry_run
@options.tracking_uri
@options.as_json
@humane
def suggest(  # noqa: PLR0913 - one argument an option
    experiment_name: str,
    n: int,
    metric: str | None,
    task: str | None,
    space_path: Path | None,
    model_name: str | None,
    seed: int | None,
    dry_run: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Search for the best configurations, and schedule them as runs.

    \b
    Example:
        mlflow-meta suggest -e sweep-7 -n 10
    Next:
        mlflow-meta work -e sweep-7 -- python train.py
    """
    given = read_space(space_path)
    store = open_store(tracking_uri)
    from mlflow_meta.cli import show
    from mlflow_meta.services.suggest import suggest as run

    with working("searching"):
        found = run(
            store,
            experiment_name,
            n=n,
            metric=metric,
            task=task,
            space=given,
            model_name=model_name,
            dry_run=dry_run,
            rng=_rng(seed),
        )
    if as_json:
        emit(show.suggestions_data(found))
        return
    show.suggestions(found)
    click.echo(
        f"Predicted by {found.model} for {found.task}, {found.objective.direction.value}; best so "
        f"far: {show.number(found.best_so_far)}."
    )
    if found.n_unseen:
        click.echo(
            f"It has not learned from {found.n_unseen} newer runs: mlflow-meta train --metric "
            f"{found.objective.metric}",
            err=True,
        )
    if len(found.items) < n:
        click.echo(f"The search space holds no more than {len(found.items)} new ones.", err=True)
    if dry_run:
        click.echo("Nothing was written (--dry-run).", err=True)
    else:
        click.echo(f"Scheduled {len(found.run_ids)} runs in {experiment_name}.")
        click.echo(f"See them: {_address(store, found.view)}")
        click.echo(f"Next: mlflow-meta work -e {experiment_name} -- python train.py", err=True)


@main.command()
@options.target
@click.option("--max-runs", type=click.IntRange(min=1), help="Stop after so many runs.")
@options.dry_run
@options.tracking_uri
@options.as_json
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@humane
def work(
    experiment_name: str,
    max_runs: int | None,
    dry_run: bool,
    tracking_uri: str | None,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Train what is scheduled: run COMMAND for each run, with its params.

    Params are passed as --name=value or, where COMMAND has placeholders, in their places.

    \b
    Example:
        mlflow-meta work -e sweep-7 -- python train.py
        mlflow-meta work -e sweep-7 -- python train.py --lr {learning_rate}
    Next:
        mlflow-meta report -e sweep-7
    """
    store = open_store(tracking_uri)
    from mlflow_meta.services.work import arguments
    from mlflow_meta.services.work import work as run

    if dry_run:
        planned = [
            arguments(command, waiting.params) for waiting in store.scheduled(experiment_name)
        ]
        if as_json:
            emit({"commands": planned[:max_runs]})
        for argv in [] if as_json else planned[:max_runs]:
            click.echo(" ".join(argv))
        return
    done = run(
        store,
        experiment_name,
        command,
        max_runs=max_runs,
        output=STDERR,
        progress=lambda waiting, argv: click.echo(f"{waiting.name}: {' '.join(argv)}", err=True),
    )
    failed = [execution for execution in done if execution.exit_code]
    if as_json:
        emit(
            {
                "n_trained": len(done),
                "n_failed": len(failed),
                "runs": [
                    {"run_id": e.run_id, "rank": e.rank, "exit_code": e.exit_code} for e in done
                ],
            }
        )
    elif not done:
        click.echo(f"Nothing waits in {experiment_name}. Next: mlflow-meta suggest", err=True)
    else:
        click.echo(f"Trained {len(done)} runs, {len(failed)} failed.")
        click.echo(f"Next: mlflow-meta report -e {experiment_name}", err=True)
    if failed:
        click.echo(
            f"Error: {failed[0].name} ended with code {failed[0].exit_code}; its run "
            f"{failed[0].run_id} is FAILED. What it printed stands above.",
            err=True,
        )
        sys.exit(1)


@main.command()
@options.target
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True,
              help="How often to harvest, train, suggest and work.")  # fmt: skip
@options.count(5)
@options.metric
@options.direction
@click.option("--learn-from", multiple=True, metavar="NAME",
              help="Experiment to learn from; repeat for several. All by default.")  # fmt: skip
@options.space_file
@click.option("--seed", type=int, help="Equal seeds and results give equal suggestions.")
@options.tracking_uri
@options.as_json
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@humane
def tune(  # noqa: PLR0913 - one argument an option
    experiment_name: str,
    rounds: int,
    n: int,
    metric: str | None,
    direction: str | None,
    learn_from: Sequence[str],
    space_path: Path | None,
    seed: int | None,
    tracking_uri: str | None,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Harvest, train, suggest and work in a loop; COMMAND as for `work`.

    \b
    Example:
        mlflow-meta tune -e sweep-7 --metric val_loss --rounds 3 -n 5 -- python train.py
    Next:
        mlflow-meta report -e sweep-7
    """
    given = read_space(space_path)
    store = open_store(tracking_uri)
    from mlflow_meta.cli import show
    from mlflow_meta.loop import tune as run

    with working("harvesting") as say:
        done = run(
            store,
            experiment_name,
            command,
            rounds=rounds,
            n=n,
            metric=metric,
            direction=_direction(direction),
            learn_from=learn_from,
            space=given,
            output=STDERR,
            rng=_rng(seed),
            progress=say,
        )
    if as_json:
        emit(show.report_data(done.report))
        return
    show.report(done.report)
    click.echo(show.balance(done.report))


@main.command()
@options.target
@options.metric
@options.direction
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Picture, as PNG.")
@options.tracking_uri
@options.as_json
@humane
def report(
    experiment_name: str,
    metric: str | None,
    direction: str | None,
    out: Path | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Show what was suggested, what was predicted, and what came of it.

    \b
    Example:
        mlflow-meta report -e sweep-7 --out progress.png
    """
    store = open_store(tracking_uri)
    from mlflow_meta.cli import show
    from mlflow_meta.services.report import report as run

    with working("reading runs"):
        found = run(store, experiment_name, metric=metric, direction=_direction(direction))
    if out is not None:
        out.write_bytes(found.picture)
        click.echo(f"Wrote {out}.", err=True)
    if as_json:
        emit(show.report_data(found))
        return
    show.report(found)
    click.echo(show.balance(found))


@main.command()
@options.dry_run
@options.tracking_uri
@options.as_json
@humane
def doctor(dry_run: bool, tracking_uri: str | None, as_json: bool) -> None:
    """Check connection, versions and permissions, and see what can be learned.

    \b
    Example:
        mlflow-meta doctor --tracking-uri http://localhost:5000
    Next:
        mlflow-meta harvest
    """
    store = open_store(tracking_uri)
    from mlflow_meta.cli import show
    from mlflow_meta.services.doctor import doctor as run

    with working("examining") as say:
        found = run(store, dry_run=dry_run, progress=lambda n: say(f"reading runs: {n}"))
    if as_json:
        emit(show.examination_data(found))
    else:
        show.examination(found)
    if not found.ok:
        sys.exit(1)


@main.command()
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path),
              default=Path("mlflow-meta-demo"), show_default=True,
              help="Where the demo's store goes; must be new.")  # fmt: skip
@options.as_json
@humane
def demo(folder: Path, as_json: bool) -> None:
    """See the whole loop on real trainings, in about a minute.

    \b
    Example:
        mlflow-meta demo
    """
    from mlflow_meta.cli import show
    from mlflow_meta.demo import demo as run

    with working("starting") as say:
        done = run(_fresh(folder), progress=say)
    if as_json:
        emit({"store": done.uri, **show.report_data(done.report)})
        return
    show.report(done.report)
    click.echo(show.balance(done.report))
    click.echo(done.guide)


def _address(store: MlflowStore, view: str) -> str:
    """Where to see a view: the server, or the UI that is started on a database."""
    if store.uri.startswith("http"):
        return store.uri.rstrip("/") + view
    return f"run `mlflow ui --backend-store-uri {store.uri}`, then open http://127.0.0.1:5000{view}"


def _direction(text: str | None) -> Direction | None:
    if text is None:
        return None
    from mlflow_meta.trials import Direction

    return Direction(text)


def _rng(seed: int | None) -> np.random.Generator:
    import numpy as np

    return np.random.default_rng(seed)


def _fresh(folder: Path) -> Path:
    """`folder`, or the first of `folder-2`, `folder-3`, ... that does not exist yet."""
    tries = [folder, *(folder.with_name(f"{folder.name}-{i}") for i in range(2, 1000))]
    return next(path for path in tries if not path.exists())
