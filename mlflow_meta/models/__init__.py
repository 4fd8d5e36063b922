"""Meta-models: what a configuration is expected to score, and how sure that is."""

from collections.abc import Callable
from functools import partial

from mlflow_meta.models.blend import Blend
from mlflow_meta.models.gaussian_process import GaussianProcess
from mlflow_meta.models.linear import QuadraticRidge
from mlflow_meta.models.meta_model import MIN_TRIALS, MetaModel
from mlflow_meta.models.network import ShallowNetwork
from mlflow_meta.models.regressor import Prediction, Regressor
from mlflow_meta.models.trees import BoostedTrees

__all__ = ["MIN_TRIALS", "ZOO", "MetaModel", "Prediction", "Regressor"]

_KINDS: dict[str, Callable[[], Regressor]] = {
    "linear": QuadraticRidge,
    "network": ShallowNetwork,
    "lightgbm": BoostedTrees,
    "gaussian_process": GaussianProcess,
}

ZOO: dict[str, Callable[[], MetaModel]] = {
    **{name: partial(MetaModel, kind) for name, kind in _KINDS.items()},
    "blend": partial(MetaModel, partial(Blend, tuple(_KINDS.values()))),
}
"""Name -> factory without arguments of every kind of meta-model that is compared."""
