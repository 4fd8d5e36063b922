"""Work: claim SCHEDULED runs, and train each under its very run id."""

from mlflow_meta.services.work.commands import all_gpus, project_command
from mlflow_meta.services.work.shift import Execution, Rules
from mlflow_meta.services.work.verb import plan, work, work_elsewhere

__all__ = ["Execution", "Rules", "all_gpus", "plan", "project_command", "work", "work_elsewhere"]
