"""Checks that any implementation of our protocols must pass, ours and yours; and a fake store."""

from mlflow_meta.testing.memory import InMemoryStore
from mlflow_meta.testing.meta_models import check_meta_model
from mlflow_meta.testing.stores import check_store

__all__ = ["InMemoryStore", "check_meta_model", "check_store"]
