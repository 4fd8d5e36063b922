"""What a tag tells of hardware by its key, and how far that is to be trusted."""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

from mlflow_meta.store import names
from mlflow_meta.store.hardware.values import READERS


class Trust(IntEnum):
    """Who says it; the lowest is believed first."""

    PLUGIN = 0
    SYSTEM = 1
    DATABRICKS = 2
    RAY = 3
    EXACT = 4  # a user's tag that names one fact: gpu_count
    MIXED = 5  # one that may hold a count or a name: gpu
    VAGUE = 6  # one that may hold anything: hardware


class Role(NamedTuple):
    """What a tag tells by its key: how far to trust it, and which of `READERS` reads its value."""

    trust: Trust
    reader: str


def is_hardware(key: str) -> bool:
    """Whether a tag tells of hardware, so that it is no column of its own."""
    return role_of(key) is not None


_CLUSTER: Final = "mlflow.databricks.cluster.info"
_SPELLINGS: Final = (
    (Trust.EXACT, "cpu_model", "cpumodel cpuname cputype"),
    (Trust.EXACT, "cpu_cores", "cpucores cpucount ncpu ncpus numcpu numcpus vcpus"),
    (Trust.EXACT, "memory_gb", "memory memorygb ram ramgb"),
    (Trust.EXACT, "memory_mb", "memorymb rammb"),
    (Trust.EXACT, "gpu_model", "gpumodel gpuname gpunames gputype acceleratortype"),
    (Trust.EXACT, "gpu_count", "gpus gpucount ngpu ngpus numgpu numgpus"),
    (Trust.EXACT, "gpu_memory_gb", "gpumemory gpumemorygb gpumem gpumemgb gpuvram gpuvramgb vram"),
    (Trust.EXACT, "gpu_memory_mb", "gpumemorymb gpumemmb gpumemorytotalmb"),
    (Trust.EXACT, "accelerator", "accelerator accelerators gpuavailable cudaavailable"),
    (Trust.EXACT, "instance_type", "instancetype machinetype nodetype"),
    (Trust.MIXED, "gpu", "gpu"),
    (Trust.MIXED, "cpu", "cpu cpus"),
    (Trust.MIXED, "resources", "resourcespertrial resourcesperworker"),
    (Trust.VAGUE, "device", "device devicename"),
    (Trust.VAGUE, "hardware", "hardware hardwaretype"),
)
"""How users spell their tags, in lower case and without spaces and any of - _ . : /"""

_USERS: Final = {
    key: Role(trust, reader) for trust, reader, keys in _SPELLINGS for key in keys.split()
}
_NAMESPACES: Final = frozenset(["ray", "io", "sys", "system", "hw", "hardware", "host", "env"])
_SEPARATOR = re.compile(r"[\s_.:/-]+")
_ONE_OF_THE_GPUS = re.compile(r"gpu\d{1,3}(?=[a-z]|$)")
_MAX_KEY_CHARS = 100


@lru_cache(maxsize=16_384)
def role_of(key: str) -> Role | None:
    """What a tag tells by its key; None where that is nothing of hardware."""
    if key == _CLUSTER:
        return Role(Trust.DATABRICKS, "cluster")
    if key.startswith(names.HARDWARE):
        fact = key.removeprefix(names.HARDWARE)
        return Role(Trust.PLUGIN, fact) if fact in READERS else None
    if key.startswith(("mlflow.", names.PREFIX)) or len(key) > _MAX_KEY_CHARS:
        return None
    words = [word for word in _SEPARATOR.split(key.lower()) if word]
    of_ray = words[:1] == ["ray"]
    while words:
        if role := _USERS.get(_ONE_OF_THE_GPUS.sub("gpu", "".join(words))):
            return Role(Trust.RAY, role.reader) if of_ray else role
        if words.pop(0) not in _NAMESPACES:
            break
    return None
