"""Running our command in a process of its own, and what that took."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
GB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a command left behind.

    Attributes:
        code: Exit code.
        stdout: Data.
        stderr: Words.
        cpu_s: Time of all its threads; says the same on a busy machine as on an idle one.
        peak_bytes: The most memory it had at once. Linux counts what the parent had when it made
            the child too, so it may be less.
    """

    code: int
    stdout: str
    stderr: str
    cpu_s: float
    peak_bytes: int

    @property
    def peak(self) -> str:
        return f"peak RSS {self.peak_bytes / GB:.2f} GB, {self.cpu_s:.0f} s CPU"


def mlflow_meta(*args: str, tracking_uri: str) -> Measured:
    """`mlflow-meta` with these arguments."""
    program = "from mlflow_meta.cli import main; main()"
    argv = [sys.executable, "-c", program, *args, "--tracking-uri", tracking_uri]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(argv, stdout=out, stderr=err, env=env)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Measured(
        code=child.returncode,
        stdout=texts[0],
        stderr=texts[1],
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * 1024,
    )
