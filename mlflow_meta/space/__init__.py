"""Search spaces: which configurations exist, written by hand or mined from history."""

from mlflow_meta.space.infer import InferredSpace, infer, read_yaml
from mlflow_meta.space.narrow import narrowed
from mlflow_meta.space.params import Categorical, Float, Integer, Param
from mlflow_meta.space.search_space import SearchSpace

__all__ = [
    "Categorical",
    "Float",
    "InferredSpace",
    "Integer",
    "Param",
    "SearchSpace",
    "infer",
    "narrowed",
    "read_yaml",
]
