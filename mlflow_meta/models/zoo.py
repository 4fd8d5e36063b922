"""The kinds of regressor that are compared, by name, and the meta-model around each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mlflow_meta.features import Encoder
from mlflow_meta.models.blend import Blend
from mlflow_meta.models.extra_trees import ExtraTrees
from mlflow_meta.models.gaussian_process import GaussianProcess
from mlflow_meta.models.linear import QuadraticRidge
from mlflow_meta.models.meta_model import MetaModel
from mlflow_meta.models.network import ShallowNetwork
from mlflow_meta.models.regressor import Regressor
from mlflow_meta.models.transfer import OneTask, Transfer
from mlflow_meta.models.trees import BoostedTrees

BLENDED: dict[Callable[[], Regressor], float] = {GaussianProcess: 0.6, ExtraTrees: 0.4}

REGRESSORS: dict[str, Callable[[], Regressor]] = {
    "linear": QuadraticRidge,
    "network": ShallowNetwork,
    "lightgbm": BoostedTrees,
    "extra_trees": ExtraTrees,
    "gaussian_process": GaussianProcess,
    "blend": partial(Blend, BLENDED),
    "transfer": OneTask,
}
"""Name -> factory of every kind of regressor, for `X (n, d)` that is all of one task."""

ZOO: dict[str, Callable[[], MetaModel]] = {
    **{kind: partial(MetaModel, make) for kind, make in REGRESSORS.items()},
    "transfer": partial(MetaModel, Transfer, Encoder.by_task),
}
"""Name -> factory without arguments of every kind of meta-model that is compared."""
