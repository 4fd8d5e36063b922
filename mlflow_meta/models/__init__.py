"""Meta-models: what a configuration is expected to score, and how sure that is."""

from mlflow_meta.models.estimator import ZooRegressor
from mlflow_meta.models.forms import Formed
from mlflow_meta.models.meta_model import MIN_TRIALS, MetaModel
from mlflow_meta.models.regressor import JointSampler, Prediction, Regressor, Updatable
from mlflow_meta.models.zoo import REGRESSORS, ZOO

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
