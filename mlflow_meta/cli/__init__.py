"""The `mlflow-meta` command: arguments in, one library call, words out."""

from mlflow_meta.cli.commands import main

__all__ = ["main"]
