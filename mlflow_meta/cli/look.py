"""Commands that look: report, explain, backtest, doctor, demo."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_meta.cli import options
from mlflow_meta.cli.reading import generator, read_direction
from mlflow_meta.cli.running import emit, humane, open_store, quiet, working
from mlflow_meta.cli.terminal import echo, say_next

if TYPE_CHECKING:
    from mlflow_meta.trials import At

# Heavy imports wait inside the commands: `mlflow-meta --help` must answer at once.


@click.command()
@options.experiment()
@click.option("--metric", metavar="NAME", help="By default the one that was suggested for.")
@options.direction
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="report.html for an interactive page that needs nothing else; report.png for a picture.",
)
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
        mlflow-meta report -e sweep-7 --out report.html
    """
    is_page = out is not None and out.suffix.lower() in (".html", ".htm")
    if out is not None and not is_page and out.suffix.lower() != ".png":
        raise click.UsageError(f"--out makes .html or .png, but the file is called {out.name!r}.")
    store = open_store(tracking_uri)
    from mlflow_meta.cli import show_report
    from mlflow_meta.services.report import report as run
    from mlflow_meta.services.report import report_page

    with working("reading runs") as say:
        found = run(store, experiment_name, metric=metric, direction=read_direction(direction))
        content = found.picture
        if is_page:
            say("asking the champion")
            now = datetime.now(timezone.utc)
            content = report_page(store, experiment_name, found, now=now)
    if out is not None:
        out.write_bytes(content)
        echo(f"Wrote {out}.", err=True)
    if as_json:
        emit(show_report.report_data(found))
        return
    show_report.report(found)
    echo(show_report.balance(found))


@click.command()
@options.experiment()
@options.metric
@options.direction
@options.at
@options.tasks_by
@click.option("--task", metavar="NAME", help="Which task, where the experiment has several.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Picture, as PNG.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws.")
@options.tracking_uri
@options.as_json
@humane
def backtest(  # noqa: PLR0913 - one argument an option
    experiment_name: str,
    metric: str | None,
    direction: str | None,
    at: At,
    tasks_by: str,
    task: str | None,
    out: Path | None,
    seed: int,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Replay an experiment's history: what would suggestions have saved? Writes no run.

    The first runs (a fifth, at least 5) are given; then each way may choose the next ones among
    those that were run. A pool is no search space: the best of it is known to exist.

    \b
    Example:
        mlflow-meta backtest -e sweep-7 --metric rmse --out regret.png
    Next:
        mlflow-meta train --metric rmse
    """
    store = open_store(tracking_uri)
    from mlflow_meta.cli import show_backtest
    from mlflow_meta.services.backtest import backtest as run

    with working("reading the harvest") as say:
        done = run(
            store,
            experiment_name,
            metric=metric,
            direction=read_direction(direction),
            at=at,
            tasks_by=tasks_by,
            task=task,
            rng=generator(seed),
            progress=say,
        )
    if out is not None:
        out.write_bytes(done.picture)
        echo(f"Wrote {out}.", err=True)
    if as_json:
        emit(show_backtest.data(done))
        return
    show_backtest.words(done)


@click.command()
@options.experiment("Whose params are explained.")
@options.predicted_metric()
@click.option("--task", metavar="NAME", help="Which task, where the experiment has several.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Picture, as PNG.")
@options.tracking_uri
@options.as_json
@humane
def explain(
    experiment_name: str,
    metric: str | None,
    task: str | None,
    out: Path | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Show which params matter, and what each does, as the champion has learned it.

    \b
    Example:
        mlflow-meta explain -e sweep-7 --out params.png
    Next:
        mlflow-meta suggest -e sweep-7
    """
    store = open_store(tracking_uri)
    from mlflow_meta.cli import show
    from mlflow_meta.services.explain import explain as run

    with working("asking the champion"):
        found = run(store, experiment_name, metric=metric, task=task)
    if out is not None:
        out.write_bytes(found.picture)
        echo(f"Wrote {out}.", err=True)
    if as_json:
        emit(show.reasons_data(found))
        return
    show.table(
        ["param", "permutation", "ped_anova", "runs"],
        [list(row) for row in found.importance.itertuples(index=False)],
    )
    echo(f"On {found.task}, says {found.model}: {found.sentence}")
    if not found.has_signal:
        echo(
            "But it could not tell good from bad on held-out trials: more runs are needed.",
            err=True,
        )
    say_next(f"mlflow-meta suggest -e {shlex.quote(experiment_name)}")


@click.command()
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
    from mlflow_meta.cli import show_report
    from mlflow_meta.services.doctor import doctor as run

    with working("examining") as say:
        found = run(store, dry_run=dry_run, progress=lambda n: say(f"reading runs: {n}"))
    if as_json:
        emit(show_report.examination_data(found))
    else:
        show_report.examination(found)
    if not found.ok:
        sys.exit(1)


@click.command()
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path),
              default=Path("mlflow-meta-demo"), show_default=True,
              help="Where the demo's store goes; NAME-2 and so on where it is there.")  # fmt: skip
@options.as_json
@humane
def demo(folder: Path, as_json: bool) -> None:
    """See the whole loop on real trainings, in about a minute.

    \b
    Example:
        mlflow-meta demo
    """
    from mlflow_meta.cli import show_report
    from mlflow_meta.demo import demo as run

    quiet()  # importing MLflow sets its log levels again

    with working("starting") as say:
        done = run(_fresh(folder), progress=say)
    if as_json:
        emit({"store": done.uri, **show_report.report_data(done.report)})
        return
    show_report.report(done.report)
    echo(show_report.balance(done.report))
    echo(done.guide)


def _fresh(folder: Path) -> Path:
    """`folder`, or the first of `folder-2`, `folder-3`, ... that does not exist yet."""
    tries = [folder, *(folder.with_name(f"{folder.name}-{i}") for i in range(2, 1000))]
    return next(path for path in tries if not path.exists())
