"""Meta-models: what a configuration is expected to score, and how sure that is."""

from collections.abc import Callable
from functools import partial

from mlflow_meta.features import Encoder
from mlflow_meta.models.blend import Blend
from mlflow_meta.models.extra_trees import ExtraTrees
from mlflow_meta.models.gaussian_process import GaussianProcess
from mlflow_meta.models.linear import QuadraticRidge
from mlflow_meta.models.meta_model import MIN_TRIALS, MetaModel
from mlflow_meta.models.network import ShallowNetwork
from mlflow_meta.models.regressor import JointSampler, Prediction, Regressor
from mlflow_meta.models.transfer import Transfer
from mlflow_meta.models.trees import BoostedTrees

__all__ = ["MIN_TRIALS", "ZOO", "JointSampler", "MetaModel", "Prediction", "Regressor"]

_KINDS: dict[str, Callable[[], Regressor]] = {
    "linear": QuadraticRidge,
    "network": ShallowNetwork,
    "lightgbm": BoostedTrees,
    "extra_trees": ExtraTrees,
    "gaussian_process": GaussianProcess,
}

ZOO: dict[str, Callable[[], MetaModel]] = {
    **{name: partial(MetaModel, kind) for name, kind in _KINDS.items()},
    "blend": partial(MetaModel, partial(Blend, tuple(_KINDS.values()))),
    "transfer": partial(MetaModel, Transfer, Encoder.by_task),
}
"""Name -> factory without arguments of every kind of meta-model that is compared."""
