"""Search engines: the configurations of a space that are worth most, and how sure that is."""

from mlflow_meta.search.choose import ENGINES, Spread
from mlflow_meta.search.local import Found, local_search
from mlflow_meta.search.question import Progress, TopK, form_of
from mlflow_meta.search.surface import Engine, Incumbent
from mlflow_meta.search.thompson import thompson
from mlflow_meta.search.top import top_k

__all__ = [
    "ENGINES",
    "Engine",
    "Found",
    "Incumbent",
    "Progress",
    "Spread",
    "TopK",
    "form_of",
    "local_search",
    "thompson",
    "top_k",
]
