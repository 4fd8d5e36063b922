"""Lineage: any run -> what it comes from, and what has come of it."""

from mlflow_meta.services.lineage.nodes import Lineage, Node, Role
from mlflow_meta.services.lineage.verb import lineage

__all__ = ["Lineage", "Node", "Role", "lineage"]
