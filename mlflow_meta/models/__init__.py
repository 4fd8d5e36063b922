"""Meta-models: what a configuration is expected to score, and how sure that is."""

from mlflow_meta.models.estimator import ZooRegressor
from mlflow_meta.models.meta_model import MIN_TRIALS, MetaModel
from mlflow_meta.models.regressor import JointSampler, Prediction, Regressor, Updatable
from mlflow_meta.models.zoo import ZOO

__all__ = [
    "MIN_TRIALS",
    "ZOO",
    "JointSampler",
    "MetaModel",
    "Prediction",
    "Regressor",
    "Updatable",
    "ZooRegressor",
]
