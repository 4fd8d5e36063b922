"""The door to MLflow: no other module of ours knows how it spells things."""

from mlflow_meta.store.contract import Record, Store
from mlflow_meta.store.mlflow_store import MlflowStore
from mlflow_meta.store.queue import Scheduled
from mlflow_meta.store.registry import Registered

__all__ = ["MlflowStore", "Record", "Registered", "Scheduled", "Store"]
