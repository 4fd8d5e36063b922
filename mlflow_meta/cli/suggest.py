"""The command `suggest`."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
from click.core import ParameterSource

from mlflow_meta.cli import options
from mlflow_meta.cli.lock import alone
from mlflow_meta.cli.reading import generator, read_direction, read_space
from mlflow_meta.cli.running import emit, humane, on_cluster, open_store, working
from mlflow_meta.cli.terminal import echo, say_next
from mlflow_meta.cli.values import Seconds

if TYPE_CHECKING:
    from mlflow_meta.effort import Limits
    from mlflow_meta.store import MlflowStore
    from mlflow_meta.trials import Suggestions

_BESIDE_FROM = {"from_run", "experiment_name", "dry_run", "as_json", "no_lock", "tracking_uri",
                "deadline"}  # fmt: skip

_ASK_A_MODEL = {"task", "model_name", "from_run", "budget", "max_duration", "per_hour", "hardware",
                "also", "search_for", "price"}  # fmt: skip

# Heavy imports wait inside the commands: `mlflow-meta --help` must answer at once.


@click.command()
@options.target
@options.count(5)
@options.predicted_metric("With --explore, by default the experiments' primary metric.")
@click.option("--task", metavar="NAME", help="Which task, where the experiment has several.")
@options.space_file
@options.where
@click.option(
    "--model-name", metavar="NAME", help="Registered model; mlflow-meta-METRIC by default."
)
@click.option(
    "--explore",
    is_flag=True,
    help="Cover the search space evenly, where runs are too few for a meta-model.",
)
@options.direction
@options.limits
@click.option(
    "--also",
    multiple=True,
    metavar="NAME[:DIRECTION]",
    help="Improve this too: duration, or a metric such as model_size or auc:maximize; repeat for "
    "several. Suggestions are then of the Pareto front; not with limits of time.",
)
@click.option(
    "--price",
    type=click.FloatRange(min=0),
    metavar="PER_HOUR",
    help="What an hour of training costs, to say what they will cost, in whatever currency.",
)
@click.option(
    "--search-for",
    type=Seconds(),
    metavar="TIME",
    help="How long to search at most, as 30s or 5m; 10s by default. It ends sooner with a proof.",
)
@options.dask
@click.option(
    "--seed",
    type=int,
    help="Other seeds give other suggestions, equal ones the same; not with --more.",
)
@click.option("--more", is_flag=True, help="Other suggestions, although nothing new was learned.")
@click.option(
    "--from",
    "from_run",
    metavar="RUN",
    help="Repeat the search that has suggested this run, and see that it finds the same.",
)
@options.no_lock
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
    where: Sequence[str],
    model_name: str | None,
    explore: bool,
    direction: str | None,
    limits: Limits,
    also: Sequence[str],
    price: float | None,
    search_for: float | None,
    address: str | None,
    seed: int | None,
    more: bool,
    from_run: str | None,
    no_lock: bool,
    dry_run: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Search for the best configurations, and schedule them as runs.

    Asked again before anything new was learned, it tells the same suggestions, and schedules none
    twice; so it may be in cron.

    \b
    Example:
        mlflow-meta suggest -e sweep-7 -n 10
        mlflow-meta suggest -e sweep-7 --where model=mlp --where lr=1e-4..1e-2
        mlflow-meta suggest -e sweep-7 --budget 2h --max-duration 20m --price 3.06
        mlflow-meta suggest -e sweep-7 --also duration --also model_size:minimize
        mlflow-meta suggest -e sweep-8 --metric val_loss --explore
    Next:
        mlflow-meta work -e sweep-7 -- python train.py
    """
    _check_usage(click.get_current_context())
    given = read_space(space_path)
    is_alone = dry_run or no_lock
    with nullcontext() if is_alone else alone("suggest", tracking_uri, experiment_name):
        store = open_store(tracking_uri)
        from mlflow_meta.cli import show, show_tuning
        from mlflow_meta.services.explore import explore as cover
        from mlflow_meta.services.suggest import suggest as run
        from mlflow_meta.services.suggest import suggest_again

        asked: dict[str, Any] = {
            "n": n,
            "metric": metric,
            "space": given,
            "where": where,
            "dry_run": dry_run,
            "rng": generator(seed) if more or seed is not None else None,
        }
        with (
            on_cluster(None if explore else address) as cluster,
            working("searching") as say,
        ):
            if explore:
                side = read_direction(direction)
                found = cover(store, experiment_name, direction=side, **asked)
            elif from_run:
                found = suggest_again(store, from_run, dry_run=dry_run, progress=say)
            else:
                how: dict[str, Any] = {"model_name": model_name, "search_s": search_for}
                how["also"] = also
                how["limits"] = limits
                how["spread"] = cluster.spread if cluster else None
                found = run(store, experiment_name, task=task, progress=say, **how, **asked)
    if as_json:
        emit(show.suggestions_data(found, price))
        return
    show.suggestions(found)
    show_tuning.grounds(found, price)
    if (
        not from_run
        and len(found.items) < n
        and not (found.searched and found.searched.is_interrupted)
    ):
        where_to = "time that was given" if limits.limit_s < math.inf else "search space"
        echo(f"The {where_to} holds no more than {len(found.items)} new ones.", err=True)
    if dry_run:
        echo("Nothing was written (--dry-run).", err=True)
        return
    echo(_done(found, experiment_name, is_from_run=from_run is not None))
    echo(f"See them: {address_of(store, found.view)}")
    say_next(f"mlflow-meta work -e {shlex.quote(experiment_name)}", "python train.py")


def _check_usage(context: click.Context) -> None:
    """Refuse options that say nothing beside one another, rather than leave one out in silence."""
    given = {
        name
        for name in context.params
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if "explore" in given and (beside := given & _ASK_A_MODEL):
        options_ = [p.opts[0] for p in context.command.params if p.name in beside]
        raise click.UsageError(f"--explore asks no meta-model: leave out {', '.join(options_)}.")
    if "also" in given and given & {"budget", "max_duration", "per_hour"}:
        raise click.UsageError(
            "--also duration weighs time by itself: leave out --budget, --max-duration and "
            "--per-hour."
        )
    if "direction" in given and "explore" not in given:
        raise click.UsageError("--direction goes with --explore: a meta-model has learned its own.")
    if {"more", "seed"} <= given:
        raise click.UsageError("--more takes a seed of its own: leave out --seed.")
    if "from_run" in given and given - _BESIDE_FROM:
        raise click.UsageError(
            "--from repeats a search with all that was asked then: give it -e, --dry-run, --json "
            "and how to reach the server alone."
        )


def _done(found: Suggestions, experiment_name: str, *, is_from_run: bool) -> str:
    from mlflow_meta.cli import show

    if is_from_run:
        return "The search was repeated: it finds the same, bit for bit."
    if found.is_repeated:
        return (
            f"These {show.runs(len(found.run_ids))} are in {experiment_name} already, and nothing "
            "was learned since. --more suggests others."
        )
    return f"Scheduled {show.runs(len(found.run_ids))} in {experiment_name}."


def address_of(store: MlflowStore, view: str) -> str:
    """Where to see a view: the server, or the UI that is started on a database."""
    if store.workspace:
        view += f"&workspace={quote(store.workspace, safe='')}"
    if store.uri.startswith("http"):
        return store.uri.rstrip("/") + view
    return f"run `mlflow ui --backend-store-uri {store.uri}`, then open http://127.0.0.1:5000{view}"
