"""Meta-models: what a configuration is expected to score, and how sure that is."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlflow_meta.models.forms import Formed
from mlflow_meta.models.meta_model import MIN_TRIALS, MetaModel
from mlflow_meta.models.regressor import JointSampler, Prediction, Regressor, Updatable
from mlflow_meta.models.zoo import REGRESSORS, ZOO

if TYPE_CHECKING:
    from mlflow_meta.models.estimator import ZooRegressor

__all__ = [
    "MIN_TRIALS",
    "REGRESSORS",
    "ZOO",
    "Formed",
    "JointSampler",
    "MetaModel",
    "Prediction",
    "Regressor",
    "Updatable",
    "ZooRegressor",
]


def __getattr__(name: str) -> Any:
    if name == "ZooRegressor":  # a scikit-learn estimator: to import that takes a second
        return import_module("mlflow_meta.models.estimator").ZooRegressor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
