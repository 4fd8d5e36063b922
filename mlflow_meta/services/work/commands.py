"""What a worker starts: the argument list of a run, a project, the GPUs of a machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from mlflow_meta.errors import BadCommand

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w./ -]*)\}")


def arguments(command: Sequence[str], params: Mapping[str, str]) -> list[str]:
    """The argument list for one run: placeholders filled, or all params appended.

    Raises:
        BadCommand: If a placeholder names no param of the run.
    """
    wanted = {name for word in command for name in _PLACEHOLDER.findall(word)}
    if not wanted:
        of_project = ["-P"] if is_project(command) else []
        pairs = [f"{name}={value}" for name, value in params.items()]
        if of_project:
            return [*command, *(word for pair in pairs for word in ("-P", pair))]
        return [*command, *(f"--{pair}" for pair in pairs)]
    if unknown := sorted(wanted - set(params)):
        raise BadCommand(
            f"The placeholder {{{unknown[0]}}} names no param of the suggested run, which has "
            f"{', '.join(params)}. Without placeholders all params are passed as --name=value."
        )
    return [_PLACEHOLDER.sub(lambda match: params[match[1]], word) for word in command]


def project_command(uri: str, entry_point: str = "main") -> list[str]:
    """The command that runs an MLflow Project in this Python's environment."""
    options = ["--entry-point", entry_point, "--env-manager", "local"]
    return [sys.executable, "-m", "mlflow", "run", uri, *options]


def is_project(command: Sequence[str]) -> bool:
    """Whether a command is of `project_command`."""
    return list(command[1:4]) == ["-m", "mlflow", "run"]


def all_gpus() -> list[str]:
    """The ids of this machine's GPUs, as `nvidia-smi` lists them; none where it is not there."""
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    return told.stdout.split() if told.returncode == 0 else []
