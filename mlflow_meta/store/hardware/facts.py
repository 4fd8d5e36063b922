"""All that a run says of its hardware, taken together."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow_meta.store import names
from mlflow_meta.store.hardware.keys import Trust, role_of
from mlflow_meta.store.hardware.load import measured_by
from mlflow_meta.store.hardware.values import Fact, Facts, read


def read_fact(key: str, value: str) -> Facts:
    """What a tag or a user says by one key and value; nothing where that is nothing of hardware.

    >>> dict(read_fact("gpu", "nvidia-a100"))
    {'gpu_model': 'A100'}
    """
    role = role_of(names.HARDWARE + key) or role_of(key)
    return read(role.reader, value) if role else {}


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
    measured = measured_by(system)
    said: list[tuple[Trust, str, Facts]] = [(Trust.SYSTEM, "", measured)]
    for key, value in tags.items():
        if role := role_of(key):
            said.append((role.trust, key, read(role.reader, value)))
    found: dict[str, Fact] = {}
    for _, _, facts in sorted(said, key=lambda fact: fact[:2]):
        for name, fact in facts.items():
            found.setdefault(name, fact)
    if "gpu_count" in measured:  # our plugin's "false" is of NVIDIA's GPUs alone
        found["accelerator"] = True
    if found.keys() & {"gpu_model", "gpu_count"}:
        found.setdefault("accelerator", True)
    return found
