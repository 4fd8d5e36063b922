"""Meta-models: what a configuration is expected to score, and how sure that is."""

from collections.abc import Callable
from functools import partial

from mlflow_meta.models.gaussian_process import GaussianProcess
from mlflow_meta.models.linear import QuadraticRidge
from mlflow_meta.models.meta_model import MIN_TRIALS, MetaModel
from mlflow_meta.models.network import ShallowNetwork
from mlflow_meta.models.regressor import Prediction, Regressor
from mlflow_meta.models.trees import BoostedTrees

__all__ = ["MIN_TRIALS", "ZOO", "MetaModel", "Prediction", "Regressor"]

ZOO: dict[str, Callable[[], MetaModel]] = {
    "linear": partial(MetaModel, QuadraticRidge),
    "network": partial(MetaModel, ShallowNetwork),
    "lightgbm": partial(MetaModel, BoostedTrees),
    "gaussian_process": partial(MetaModel, GaussianProcess),
}
"""Name -> factory without arguments of every kind of meta-model that is compared."""
