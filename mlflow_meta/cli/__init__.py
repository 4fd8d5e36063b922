"""The `mlflow-meta` command: arguments in, one library call, words out."""

import click

from mlflow_meta.cli.follow import lineage
from mlflow_meta.cli.learn import harvest, space, train
from mlflow_meta.cli.look import backtest, demo, doctor, explain, report
from mlflow_meta.cli.mcp import mcp
from mlflow_meta.cli.schedule import cycle, monitor, promote
from mlflow_meta.cli.suggest import suggest
from mlflow_meta.cli.tune import tune
from mlflow_meta.cli.watch import watch
from mlflow_meta.cli.work import work

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mlflow-meta")
def main() -> None:
    """Learn from past MLflow runs, and schedule the next ones.

    \b
    First time here:   mlflow-meta demo
    On your server:    mlflow-meta doctor --tracking-uri http://localhost:5000
    """


_COMMANDS = (
    demo, doctor, harvest, space, train, promote, explain, backtest, suggest, work, watch, tune,
    cycle, monitor, report, lineage, mcp,
)  # fmt: skip

for command in _COMMANDS:
    main.add_command(command)
