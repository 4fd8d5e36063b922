"""The services one after the other: `tune` works too, `cycle` leaves that to workers."""

from mlflow_meta.loop.cron import Cycle, cycle
from mlflow_meta.loop.tuning import Round, Tuning, tune

__all__ = ["Cycle", "Round", "Tuning", "cycle", "tune"]
