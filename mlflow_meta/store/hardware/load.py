"""What the load of a machine, as MLflow's `system/*` metrics have it, tells of the machine."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from mlflow_meta.store.hardware.values import MAX_GB, Fact

_METRIC = re.compile(
    r"system/(?:(.*)/)?(?:gpu_(\d{1,4})_(?:(memory_usage)|power_usage|utilization)|system_memory_usage)"
    r"_(megabytes|gigabytes|percentage|watts)",
    re.A,
)
_GB: Final = {"megabytes": 1e-3, "gigabytes": 1.0}


class _Metric(NamedTuple):
    node: str
    gpu: str | None
    quantity: str  # of memory in use: the unit; "" of all else


@lru_cache(maxsize=16_384)
def _metric(key: str) -> _Metric | None:
    match = _METRIC.fullmatch(key)
    if not match:
        return None
    node, gpu, gpu_memory, unit = match.groups()
    quantity = unit if gpu_memory or not gpu else ""
    return _Metric(node or "", gpu, quantity)


def measured_by(system: Mapping[str, float]) -> dict[str, Fact]:
    """The GPUs and the memory of a machine, from how much of it was in use."""
    gpus: set[tuple[str, str]] = set()
    used: dict[tuple[str, str | None], dict[str, float]] = {}
    for key, value in system.items():
        if metric := _metric(key):
            if metric.gpu:
                gpus.add((metric.node, metric.gpu))
            used.setdefault((metric.node, metric.gpu), {})[metric.quantity] = value
    facts: dict[str, Fact] = {"gpu_count": len(gpus), "accelerator": True} if gpus else {}
    for fact, of_gpu in (("memory_gb", False), ("gpu_memory_gb", True)):
        if total := _total([use for (_, gpu), use in used.items() if (gpu is not None) is of_gpu]):
            facts[fact] = total
    return facts


def _total(uses: list[dict[str, float]]) -> float | None:
    """The total memory in GB of one of several devices, to two digits.

    MLflow rounds the share in use to 0.1 %, so the total is the better known the more is in use:
    the device with the largest share tells, and nobody does with less than 1 %. Two digits, for
    with more of them every run would have a total of its own.
    """
    share, total = 0.0, 0.0
    for use in uses:
        percentage = use.get("percentage", 0.0)
        used_gb = next((use[unit] * gb for unit, gb in _GB.items() if unit in use), 0.0)
        if max(share, 1.0) <= percentage <= 100.0 and math.isfinite(used_gb):
            share, total = percentage, used_gb / percentage * 100.0
    rounded = float(f"{total:.2g}") if total >= 10 else float(round(total))
    return rounded if 0 < rounded <= MAX_GB else None
