"""What a run says of the hardware that it ran on, in one spelling.

Runs say it in five ways. Where they differ, the first of these counts: our plugin's tags, MLflow's
system metrics, Databricks' tags, Ray's tags, and the tags that people invent. What nobody can make
sense of (a tag `device` that says "kitchen") is left out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from mlflow_meta.store import names

Fact: TypeAlias = str | int | float | bool
Facts: TypeAlias = Mapping[str, Fact]


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
    """What a tag tells by its key: how far to trust it, and which of `_READERS` reads its value."""

    trust: Trust
    reader: str


def hardware_of(tags: Mapping[str, str], system: Mapping[str, float]) -> dict[str, Fact]:
    """The hardware of a run; what is unknown is left out.

    Args:
        tags: All of the run's tags.
        system: The last values of the run's metrics `system/*`, under their full names.

    Returns:
        cpu_model: As it was written.
        cpu_cores: Logical cores.
        memory_gb: The machine's memory in 10^9 bytes, to 0.1; from metrics to two digits.
        gpu_model: In capitals and without the maker's name, so that "NVIDIA A100-SXM4-80GB" and
            "a100-sxm4-80gb" are one; several models are joined by ", ".
        gpu_count: Never 0: without a GPU it is left out, and `accelerator` is False.
        gpu_memory_gb: The memory of one GPU in 10^9 bytes.
        accelerator: Whether there is a GPU, TPU or the like.
        instance_type: The cloud's name for the machine; of a Databricks cluster the driver's.
        machine: The architecture: "x86_64", "aarch64", ...
    """
    measured = _measured(system)
    said: list[tuple[Trust, str, Facts]] = [(Trust.SYSTEM, "", measured)]
    for key, value in tags.items():
        if role := _role(key):
            said.append((role.trust, key, _read(role.reader, value)))
    found: dict[str, Fact] = {}
    for _, _, facts in sorted(said, key=lambda fact: fact[:2]):
        for name, fact in facts.items():
            found.setdefault(name, fact)
    if "gpu_count" in measured:  # our plugin's "false" is of NVIDIA's GPUs alone
        found["accelerator"] = True
    if found.keys() & {"gpu_model", "gpu_count"}:
        found.setdefault("accelerator", True)
    return found


def is_hardware(key: str) -> bool:
    """Whether a tag tells of hardware, so that it is no column of its own."""
    return _role(key) is not None


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
def _role(key: str) -> Role | None:
    if key == _CLUSTER:
        return Role(Trust.DATABRICKS, "cluster")
    if key.startswith(names.HARDWARE):
        fact = key.removeprefix(names.HARDWARE)
        return Role(Trust.PLUGIN, fact) if fact in _READERS else None
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


_MAX_CHARS = 100  # of a value that isn't JSON
_MAX_CORES = 10_000
_MAX_GPUS = 100_000
_MAX_GB = 100_000.0
_LARGEST_INDEX = 512  # a higher number in "gpu" is no count but a model, such as 3090

_YES: Final = frozenset(["true", "yes", "y", "on"])
_NO: Final = frozenset(["false", "no", "n", "off", "none"])
_UNKNOWN: Final = frozenset(
    ["", "-", "?", "auto", "default", "n/a", "na", "nan", "null", "unknown"]
)
_MACHINES: Final = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"} | {
    name: name for name in ("x86_64", "aarch64", "i386", "i686", "armv7l", "ppc64le", "s390x")
}
_SPACE = re.compile(r"\s+")
_WHOLE = re.compile(r"(\d{1,6})(?:\.0+)?(?: ?gpus?)?", re.A | re.I)
_CORES = re.compile(r"(\d{1,6})(?:\.0+)?(?: ?(?:v?cpus?|v?cores?|threads))?", re.A | re.I)
_SIZE = re.compile(
    r"(\d{1,15}(?:\.\d{1,15})?(?:e\+?\d\d?)?) ?(?:([kmgt])(i?)(?:b|bytes)?|(bytes|b))?", re.A | re.I
)
_INDICES = re.compile(r"\d{1,3}(?: ?, ?\d{1,3})+", re.A)
_TEXT = re.compile(r"[A-Za-z][\w.() /-]{1,63}", re.A)
_CPU = re.compile(r"cpu(?::\d{1,3})?", re.A | re.I)
_DEVICE = re.compile(
    r"/?(?:physical_)?(?:device:)?(?:cuda|gpu|mps|xpu|hpu|npu|xla|rocm|hip)(?::\d{1,3})?|tpu\b.*",
    re.A | re.I,
)
_MAKER = re.compile(r"(?:(?:nvidia|tesla|geforce|amd|gpu|accelerator_type)[ _:-]+)+", re.I)
_GPU_NAME = re.compile(r"(?=\d{3,4}$|.*[A-Z])[A-Z0-9][A-Z0-9 .+/()-]{1,63}")
_ANY = re.compile("")
_LIKELY_GPU = re.compile(r"\d|nvidia|tesla|geforce|quadro|titan|radeon", re.A | re.I)
_SURE_GPU = re.compile(
    r"nvidia|tesla|geforce|quadro|titan|radeon|instinct|apple m\d|[rg]tx[ _-]?\d|\bmi\d{2,3}x?\b"
    r"|\b(?:[ptl]4|k80|p40|[pv]100s?|a(?:10g?|16|30|40|[18]00)|l(?:20|40s?)|h(?:20|[128]00)"
    r"|b[123]00|g[bh]200)\b(?!\.)",  # p4.xlarge is a machine
    re.A | re.I,
)
_SURE_CPU = re.compile(r"\b(?:intel|xeon|epyc|ryzen|opteron|threadripper|graviton\d?)\b", re.I)
_COUNTED = (  # 8xH100; 2 A100; A100 x2 and A100 (x2), but not GTX 970; a100:2
    re.compile(r"(?P<count>\d{1,3}) ?[x*\u00d7] ?(?P<model>.+)", re.A | re.I),
    re.compile(r"(?P<count>\d{1,2}) (?P<model>[a-z].*)", re.A | re.I),
    re.compile(
        r"(?P<model>.{2,}?) ?\(?(?:(?<![a-z])|(?<=gb))[x*\u00d7] ?(?P<count>\d{1,3})\)?",
        re.A | re.I,
    ),
    re.compile(r"(?P<model>.{2,}?) ?: ?(?P<count>\d{1,3})", re.A | re.I),
)
_RESOURCE = re.compile(
    r"\b(CPU|GPU|memory|accelerator_type:[\w-]{1,40})['\"]? ?[:=] ?"
    r"(\d{1,15}(?:\.\d{1,15})?(?:e\+?\d\d?)?)",
    re.A,
)


@lru_cache(maxsize=16_384)
def _read(reader: str, value: str) -> Facts:
    """What a tag's value says; empty if that is nothing."""
    if reader in ("cluster", "resources"):
        return MappingProxyType(_READERS[reader](value))
    text = _SPACE.sub(" ", value[: _MAX_CHARS + 1]).strip()
    if len(value) > _MAX_CHARS or text.lower() in _UNKNOWN:
        return {}
    return MappingProxyType(_READERS[reader](text))


def _cpu_cores(text: str) -> dict[str, Fact]:
    match = _CORES.fullmatch(text)
    return {"cpu_cores": int(match[1])} if match and 0 < int(match[1]) <= _MAX_CORES else {}


def _cpu_model(text: str) -> dict[str, Fact]:
    if text.lower() in _MACHINES:
        return _machine(text)
    readable = text.isprintable() and sum(map(str.isalpha, text)) > 2
    return {"cpu_model": text} if readable and text.lower() not in _YES | _NO else {}


def _cpu(text: str) -> dict[str, Fact]:
    return _cpu_cores(text) or _cpu_model(text)


def _machine(text: str) -> dict[str, Fact]:
    known = _MACHINES.get(text.lower())
    return {"machine": known or text} if known or _TEXT.fullmatch(text) else {}


def _instance_type(text: str) -> dict[str, Fact]:
    if text.lower() in _MACHINES:
        return _machine(text)
    return (
        {"instance_type": text} if _TEXT.fullmatch(text) and text.lower() not in _YES | _NO else {}
    )


def _size(fact: str, unit: str) -> Callable[[str], dict[str, Fact]]:
    """Reads a size; without a unit it has this one up to 4096 GB, and is in bytes from 10^9 on."""

    def read(text: str) -> dict[str, Fact]:
        match = _SIZE.fullmatch(text)
        if not match:
            return {}
        number, prefix, binary, plain = float(match[1]), match[2], match[3], match[4]
        if plain or (not prefix and number >= 1e9):
            size_gb, most_gb = number / 1e9, _MAX_GB
        else:
            thousands = "_kmgt".index((prefix or unit).lower())
            size_gb = number * (1024.0 if binary else 1000.0) ** thousands / 1e9
            most_gb = _MAX_GB if prefix else 4096.0
        return {fact: round(size_gb, 1)} if 0.05 < size_gb <= most_gb else {}

    return read


def _accelerator(text: str) -> dict[str, Fact]:
    if text in ("0", "1"):
        return {"accelerator": text == "1"}
    return _gpu(text, _SURE_GPU)


def _gpu_count(text: str) -> dict[str, Fact]:
    match = _WHOLE.fullmatch(text)
    if match and int(match[1]) == 0:
        return {"accelerator": False}
    if match:
        return {"gpu_count": int(match[1])} if int(match[1]) <= _MAX_GPUS else {}
    return _gpu(text)


def _gpu_model(text: str) -> dict[str, Fact]:
    return _gpu(text, _ANY)


def _gpu(text: str, model_if: re.Pattern[str] = _LIKELY_GPU) -> dict[str, Fact]:
    """A yes or no, a device, a count, a model, or both; a model has `model_if` in it."""
    if text.lower() in _YES or all(_DEVICE.fullmatch(part.strip()) for part in text.split(",")):
        return {"accelerator": True}
    if text.lower() in _NO or _CPU.fullmatch(text):
        return {"accelerator": False}
    if _INDICES.fullmatch(text):
        return {"gpu_count": text.count(",") + 1}
    if (match := _WHOLE.fullmatch(text)) and int(match[1]) <= _LARGEST_INDEX:
        # A lone 0 is the first GPU for one team, and no GPU for the next.
        return {"gpu_count": int(match[1])} if int(match[1]) else {}
    for counted in _COUNTED:
        if (match := counted.fullmatch(text)) and (model := _models(match["model"], model_if)):
            count = int(match["count"])
            return {"gpu_model": model, "gpu_count": count} if count else {"gpu_model": model}
    model = _models(text, model_if)
    return {"gpu_model": model} if model else {}


def _models(text: str, model_if: re.Pattern[str]) -> str:
    """The names of GPUs, each once; "" if one of them is none."""
    if not model_if.search(text):
        return ""
    found = {
        _MAKER.sub("", part.strip(), count=1).replace("_", " ").upper() for part in text.split(",")
    }
    return ", ".join(sorted(found)) if all(map(_GPU_NAME.fullmatch, found)) else ""


def _device(text: str) -> dict[str, Fact]:
    if _WHOLE.fullmatch(text):  # an index
        return {"accelerator": True}
    return _gpu(text, _SURE_GPU) or (_cpu_model(text) if _SURE_CPU.search(text) else {})


def _hardware(text: str) -> dict[str, Fact]:
    return _device(text) or _instance_type(text)


def _cluster(text: str) -> dict[str, Fact]:
    try:
        cluster = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(cluster, dict):
        return {}
    # Python runs on the driver, which is of another type than the workers where one was chosen.
    node = cluster.get("driver_node_type_id") or cluster.get("node_type_id")
    facts = _instance_type(node) if isinstance(node, str) else {}
    runtime = str(cluster.get("spark_version"))  # 13.1.x-gpu-ml-scala2.12
    if "-gpu-" in runtime or "-cpu-" in runtime:
        facts["accelerator"] = "-gpu-" in runtime
    return facts


def _resources(text: str) -> dict[str, Fact]:
    """Ray's resources of a worker: {"CPU": 4, "GPU": 1, "accelerator_type:A100": 0.001}."""
    facts: dict[str, Fact] = {}
    for name, amount in _RESOURCE.findall(text):
        reader = {"CPU": _cpu_cores, "GPU": _gpu_count, "memory": _READERS["memory_gb"]}
        facts |= reader[name](amount) if name in reader else _gpu_model(name)
    return facts


_READERS: Final[Mapping[str, Callable[[str], dict[str, Fact]]]] = {
    "cpu_model": _cpu_model,
    "cpu_cores": _cpu_cores,
    "cpu": _cpu,
    "memory_gb": _size("memory_gb", "G"),
    "memory_mb": _size("memory_gb", "M"),
    "gpu_memory_gb": _size("gpu_memory_gb", "G"),
    "gpu_memory_mb": _size("gpu_memory_gb", "M"),
    "gpu_model": _gpu_model,
    "gpu_count": _gpu_count,
    "gpu": _gpu,
    "accelerator": _accelerator,
    "device": _device,
    "hardware": _hardware,
    "instance_type": _instance_type,
    "machine": _machine,
    "cluster": _cluster,
    "resources": _resources,
}

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


def _measured(system: Mapping[str, float]) -> dict[str, Fact]:
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
    return rounded if 0 < rounded <= _MAX_GB else None
