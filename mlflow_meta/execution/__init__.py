"""Execution: a training program that can't outlive its worker's heartbeats."""

from mlflow_meta.execution.launcher import clock
from mlflow_meta.execution.trainer import Ended, Trainer, Why

__all__ = ["Ended", "Trainer", "Why", "clock"]
