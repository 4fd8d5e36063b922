"""Tags every new run with the hardware it runs on.

MLflow loads this module during `import mlflow`, in every process of every user who has mlflow-meta
installed. So it imports nothing but the standard library, starts no program, and never raises.

It doesn't even import MLflow's base class, `RunContextProvider`: for whoever imported this module
before mlflow, mlflow would find it half-made ("partially initialized module") and leave it out.
"""

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

PREFIX = "mlflow_meta.hardware."
CPUINFO = Path("/proc/cpuinfo")
NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")  # one directory for each GPU that the driver has


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

    Returns:
        cpu_model: The processor's name; absent on ARM, where Linux doesn't say it.
        cpu_cores: How many logical cores this process may use.
        memory_gb: The machine's memory in 10^9 bytes, to 0.1.
        machine: The architecture, as in "x86_64".
        accelerator: "true" if there is an NVIDIA GPU, "false" if there is none; Linux only.
        gpu_model, gpu_count: The GPUs' names, each once, and how many; absent without a GPU.
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
    if hasattr(os, "sched_getaffinity"):
        return str(len(os.sched_getaffinity(0)))
    return str(os.cpu_count() or "")


def _memory_gb() -> str:
    if not hasattr(os, "sysconf"):  # Windows
        return ""
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f}"


def _accelerator() -> str:
    if sys.platform != "linux":
        return ""
    return "true" if _gpus() else "false"


def _gpu_model() -> str:
    return ", ".join(sorted({_value_of("Model", gpu / "information") for gpu in _gpus()}))


def _gpu_count() -> str:
    return str(len(_gpus()) or "")


_FACTS: dict[str, Callable[[], str]] = {
    "cpu_model": _cpu_model,
    "cpu_cores": _cpu_cores,
    "memory_gb": _memory_gb,
    "machine": platform.machine,
    "accelerator": _accelerator,
    "gpu_model": _gpu_model,
    "gpu_count": _gpu_count,
}


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
