"""A bridge to Optuna: a sampler that knows past runs, and studies made of them (extra `[optuna]`).

Nothing else of this package imports it, so that Optuna need not be installed.
"""

from mlflow_meta.optuna.sampler import MetaSampler
from mlflow_meta.optuna.warm_start import to_optuna

__all__ = ["MetaSampler", "to_optuna"]
