"""Tags every new run with the hardware it runs on.

MLflow loads this module during `import mlflow`, in every process of every user who has mlflow-meta
installed. So it imports nothing but the standard library, starts no program, and never raises.
The first new run of a process asks NVML and psutil too, where the user has them.

It doesn't even import MLflow's base class, `RunContextProvider`: for whoever imported this module
before mlflow, mlflow would find it half-made ("partially initialized module") and leave it out.
"""

import contextlib
import importlib
import math
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar

PREFIX = "mlflow_meta.hardware."
CPUINFO = Path("/proc/cpuinfo")
NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")  # one directory for each GPU that the driver has
OWN_CGROUP = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")  # version 2; version 1 has other files, so no limits are found

_T = TypeVar("_T")


class HardwareRunContext:
    """Adds the `mlflow_meta.hardware.*` tags at `mlflow.start_run`; a `RunContextProvider`."""

    def in_context(self) -> bool:
        """Whether to add tags: always, unless MLFLOW_META_HARDWARE=0."""
        return os.environ.get("MLFLOW_META_HARDWARE") != "0"

    def tags(self) -> dict[str, str]:
        """The tags; MLflow calls this once for each new run."""
        return dict(hardware_tags())


@cache
def hardware_tags() -> Mapping[str, str]:
    """What is known about this machine, as tags; a fact that can't be read is left out.

    The first call takes 1 ms; where `pynvml` is installed, 20 ms without a driver and NVML's start,
    which can take a second, with one. Every later call takes microseconds.

    Returns:
        cpu_model: The processor's name; absent on ARM, where Linux doesn't say it.
        cpu_cores: How many logical cores this process may use, and its container's limit, rounded
            up, if that is lower.
        memory_gb: The machine's memory in 10^9 bytes, to 0.1; its container's limit if that is
            lower.
        machine: The architecture, as in "x86_64".
        accelerator: "true" if there is an NVIDIA GPU, "false" if there is none; without NVML only
            on Linux.
        gpu_model, gpu_count: The GPUs' names, each once, and how many; absent without a GPU.
        gpu_memory_gb: The memory of one GPU, the smallest, in 10^9 bytes, to 0.1; NVML only.
    """
    tags = {}
    for name, read in _FACTS.items():
        with contextlib.suppress(OSError, ValueError):
            if fact := read():
                tags[PREFIX + name] = fact
    return tags


def _cpu_model() -> str:
    if sys.platform != "linux":
        return platform.processor()
    return _value_of("model name", CPUINFO)


def _cpu_cores() -> str:
    cores = _affinity() or os.cpu_count()
    if not cores:
        return ""
    return str(_ask(lambda: _within_cpu_limits(cores), cores))


def _within_cpu_limits(cores: int) -> int:
    limits = [math.ceil(int(q) / int(period)) for q, period in _limits("cpu.max") if q != "max"]
    return min([cores, *limits])


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    if sys.platform != "win32":  # macOS has none to ask for
        return 0
    return _ask(lambda: len(importlib.import_module("psutil").Process().cpu_affinity()), 0)


def _memory_gb() -> str:
    if hasattr(os, "sysconf"):
        n_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:  # Windows
        n_bytes = _ask(lambda: int(importlib.import_module("psutil").virtual_memory().total), 0)
    n_bytes = _ask(lambda: _within_memory_limits(n_bytes), n_bytes)
    return f"{n_bytes / 1e9:.1f}" if n_bytes > 0 else ""


def _within_memory_limits(n_bytes: int) -> int:
    return min([n_bytes, *(int(most) for (most,) in _limits("memory.max") if most != "max")])


def _limits(file: str) -> Iterator[list[str]]:
    """The words of a file of this process's cgroup, and of those around it."""
    lines = OWN_CGROUP.read_text(encoding="utf-8").splitlines()
    for own in (Path(line.removeprefix("0::/")) for line in lines if line.startswith("0::/")):
        for group in (own, *own.parents):
            with contextlib.suppress(OSError):  # the outermost of a machine has no limits
                yield (CGROUPS / group / file).read_text(encoding="utf-8").split()


def _accelerator() -> str:
    if _nvml_gpus():
        return "true"
    if sys.platform != "linux":
        return ""
    return "true" if _gpus() else "false"


def _gpu_model() -> str:
    measured = {name for name, _ in _nvml_gpus()}
    return ", ".join(sorted(measured or {_value_of("Model", g / "information") for g in _gpus()}))


def _gpu_count() -> str:
    return str(len(_nvml_gpus() or _gpus()) or "")


def _gpu_memory_gb() -> str:
    return f"{min(gb for _, gb in _nvml_gpus()):.1f}" if _nvml_gpus() else ""


_FACTS: dict[str, Callable[[], str]] = {
    "cpu_model": _cpu_model,
    "cpu_cores": _cpu_cores,
    "memory_gb": _memory_gb,
    "machine": platform.machine,
    "accelerator": _accelerator,
    "gpu_model": _gpu_model,
    "gpu_count": _gpu_count,
    "gpu_memory_gb": _gpu_memory_gb,
}


@cache
def _nvml_gpus() -> list[tuple[str, float]]:
    """Each GPU's name and memory in 10^9 bytes; none if NVML isn't there or fails in any way."""
    return _ask(_ask_nvml, [])


def _ask_nvml() -> list[tuple[str, float]]:
    nvml = importlib.import_module("pynvml")
    nvml.nvmlInit()  # counts its calls, so that the one who also uses NVML isn't shut down by us
    try:
        gpus = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        names = [nvml.nvmlDeviceGetName(gpu) for gpu in gpus]  # bytes in old versions
        texts = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
        sizes = [int(nvml.nvmlDeviceGetMemoryInfo(gpu).total) / 1e9 for gpu in gpus]
    finally:
        nvml.nvmlShutdown()
    return list(zip(texts, sizes, strict=True))


def _ask(read: Callable[[], _T], otherwise: _T) -> _T:
    """What another's package answers, or `otherwise`, whatever happens in there."""
    try:
        return read()
    except KeyboardInterrupt:
        raise
    except BaseException:  # a SystemExit of a broken package must not end the user's training
        return otherwise


def _gpus() -> list[Path]:
    try:
        return list(NVIDIA_GPUS.iterdir())
    except FileNotFoundError:  # no driver, so no GPU; any other error means that we don't know
        return []


def _value_of(key: str, path: Path) -> str:
    """The value of the first `key : value` line of a file of /proc."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    raise ValueError(f"{path} has no line {key!r}.")
