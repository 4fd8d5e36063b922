"""What the value of a tag says of hardware, by the reader that its key asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeAlias

Fact: TypeAlias = str | int | float | bool
Facts: TypeAlias = Mapping[str, Fact]

_MAX_CHARS = 100  # of a value that isn't JSON
_MAX_CORES = 10_000
_MAX_GPUS = 100_000
MAX_GB = 100_000.0
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
def read(reader: str, value: str) -> Facts:
    """What a tag's value says; empty if that is nothing."""
    if reader in ("cluster", "resources"):
        return MappingProxyType(READERS[reader](value))
    text = _SPACE.sub(" ", value[: _MAX_CHARS + 1]).strip()
    if len(value) > _MAX_CHARS or text.lower() in _UNKNOWN:
        return {}
    return MappingProxyType(READERS[reader](text))


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
            size_gb, most_gb = number / 1e9, MAX_GB
        else:
            thousands = "_kmgt".index((prefix or unit).lower())
            size_gb = number * (1024.0 if binary else 1000.0) ** thousands / 1e9
            most_gb = MAX_GB if prefix else 4096.0
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
        reader = {"CPU": _cpu_cores, "GPU": _gpu_count, "memory": READERS["memory_gb"]}
        facts |= reader[name](amount) if name in reader else _gpu_model(name)
    return facts


READERS: Final[Mapping[str, Callable[[str], dict[str, Fact]]]] = {
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
