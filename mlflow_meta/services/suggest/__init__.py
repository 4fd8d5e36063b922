"""Suggest: champion + search space -> ranked SCHEDULED runs in the target experiment."""

from mlflow_meta.services.suggest.verb import suggest, suggest_again

__all__ = ["suggest", "suggest_again"]
