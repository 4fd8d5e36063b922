"""Meta-learning for MLflow: past runs in, next runs out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_meta.dataset import MetaDataset
    from mlflow_meta.errors import MetaError
    from mlflow_meta.loop import cycle, tune
    from mlflow_meta.proposal import propose
    from mlflow_meta.services.harvest import harvest
    from mlflow_meta.services.monitor import monitor
    from mlflow_meta.services.promote import promote
    from mlflow_meta.services.suggest import suggest
    from mlflow_meta.services.train import train
    from mlflow_meta.services.watch import watch
    from mlflow_meta.services.work import work
    from mlflow_meta.space import SearchSpace
    from mlflow_meta.store import MlflowStore
    from mlflow_meta.store.stops import should_stop

__all__ = [
    "MetaDataset",
    "MetaError",
    "MlflowStore",
    "SearchSpace",
    "cycle",
    "harvest",
    "monitor",
    "promote",
    "propose",
    "should_stop",
    "suggest",
    "train",
    "tune",
    "watch",
    "work",
]

# MLflow loads our plugin while it is itself being imported, and that imports this file: so names
# are looked up on first use (PEP 562), and `import mlflow` never pays for lightgbm or scikit-learn.
_HOME = {
    "MetaDataset": "dataset",
    "MetaError": "errors",
    "MlflowStore": "store",
    "SearchSpace": "space",
    "cycle": "loop",
    "harvest": "services.harvest",
    "monitor": "services.monitor",
    "promote": "services.promote",
    "propose": "proposal",
    "should_stop": "store.stops",
    "suggest": "services.suggest",
    "train": "services.train",
    "tune": "loop",
    "watch": "services.watch",
    "work": "services.work",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mlflow-meta")
    if name in _HOME:
        return getattr(import_module(f"mlflow_meta.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
