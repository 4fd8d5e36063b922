"""Search spaces: which configurations exist, written by hand or mined from history."""

from mlflow_meta.space.infer import InferredSpace, infer, read_yaml
from mlflow_meta.space.narrow import narrowed
from mlflow_meta.space.own import own_space
from mlflow_meta.space.params import Categorical, Float, Integer, Param
from mlflow_meta.space.rejections import (
    Constrained,
    Decision,
    Rejection,
    Verdict,
    constrained,
    decision_of,
)
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
    "constrained",
    "decision_of",
    "infer",
    "narrowed",
    "own_space",
    "read_yaml",
]
