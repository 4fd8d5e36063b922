"""What the options of several commands mean, as the library has it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import numpy as np

    from mlflow_meta.effort import Limits
    from mlflow_meta.space import SearchSpace
    from mlflow_meta.store.hardware.values import Fact
    from mlflow_meta.trials import Direction


def read_space(path: Path | None) -> SearchSpace | None:
    """The search space in a file; None for no file."""
    if path is None:
        return None
    from mlflow_meta.errors import BadSpace
    from mlflow_meta.space import read_yaml

    try:
        return read_yaml(path.read_text(encoding="utf-8"))
    except BadSpace as error:
        raise BadSpace(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise BadSpace(f"{path} is not a text file in UTF-8.") from error


def read_hardware(text: str | None) -> dict[str, Fact]:
    """A `--hardware` such as `gpu=A100,count=1` as columns of trials; nothing for None.

    Names and values are read as those of a run's tags are.
    """
    if text is None:
        return {}
    from mlflow_meta.store.hardware import read_fact

    found: dict[str, Fact] = {}
    for part in text.split(","):
        name, is_there, value = part.partition("=")
        name = {"count": "gpu_count"}.get(name.strip(), name.strip())
        facts = read_fact(name, value.strip()) if is_there else {}
        if not facts:
            raise click.BadParameter(
                f"{part.strip()!r} says nothing of hardware. Write gpu=A100,count=1 or one of "
                "cpu_model, cpu_cores, memory_gb, gpu_model, gpu_count, gpu_memory_gb, "
                "accelerator, instance_type and machine, each with = and its value.",
                param_hint="--hardware",
            )
        found |= {f"hardware.{key}": fact for key, fact in facts.items()}
    return found


def read_limits(
    budget: float | None, max_duration: float | None, hardware: str | None, *, per_hour: bool
) -> Limits:
    """The options of `options.limits` as the library has them."""
    from mlflow_meta.effort import Limits

    return Limits(
        longest_s=max_duration,
        budget_s=budget,
        is_per_hour=per_hour,
        hardware=read_hardware(hardware),
    )


def read_direction(text: str | None) -> Direction | None:
    """A `--direction` as the library has it; None where it was not given."""
    if text is None:
        return None
    from mlflow_meta.trials import Direction

    return Direction(text)


def read_gpus(text: str | None) -> list[str]:
    """The ids of `--gpus`; those of the machine for `all`, none where it was not given."""
    if text is None:
        return []
    if text.strip() != "all":
        return [part.strip() for part in text.split(",") if part.strip()]
    from mlflow_meta.services.work import all_gpus

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = visible.split(",") if visible else all_gpus()
    if not found:
        raise click.BadParameter("nvidia-smi lists no GPU here.", param_hint="--gpus")
    return found


def generator(seed: int | None) -> np.random.Generator:
    """The generator of a `--seed`; a fresh one where it was not given."""
    import numpy as np

    return np.random.default_rng(seed)
