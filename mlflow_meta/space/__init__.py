"""Search spaces: which configurations exist, written by hand or mined from history."""

from mlflow_meta.space.configspace import from_configspace, to_configspace
from mlflow_meta.space.decisions import Decision, Verdict, decision_of
from mlflow_meta.space.distributions import (
    from_distributions,
    read_distribution,
    to_distributions,
)
from mlflow_meta.space.files import InferredSpace, read_yaml
from mlflow_meta.space.infer import conditioned, infer
from mlflow_meta.space.narrow import narrowed
from mlflow_meta.space.own import own_space
from mlflow_meta.space.params import Categorical, Float, Integer, Param
from mlflow_meta.space.rejections import Constrained, Rejection, constrained
from mlflow_meta.space.search_space import SearchSpace

__all__ = [
    "Categorical",
    "Constrained",
    "Decision",
    "Float",
    "InferredSpace",
    "Integer",
    "Param",
    "Rejection",
    "SearchSpace",
    "Verdict",
    "conditioned",
    "constrained",
    "decision_of",
    "from_configspace",
    "from_distributions",
    "infer",
    "narrowed",
    "own_space",
    "read_distribution",
    "read_yaml",
    "to_configspace",
    "to_distributions",
]
