"""Search engines: the configurations of a space that are worth most under an acquisition."""

from mlflow_meta.search.local import Found, local_search

__all__ = ["Found", "local_search"]
