"""One command of a kind at a time on one machine; the system lets go whatever becomes of us."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow_meta.errors import TryLater


@contextmanager
def alone(verb: str, uri: str | None, *names: str) -> Iterator[None]:
    """Hold the lock of a command while the block runs.

    Nothing depends on it: two at once, of two machines say, end as one would. It spares work.

    Args:
        verb: Which command.
        uri: Of its store, as it was given; None for the one of this folder.
        names: Of its experiments.

    Raises:
        TryLater: At once, if another process of this user holds it.
    """
    where = uri or f"the store in {os.getcwd()}"
    if workspace := os.environ.get("MLFLOW_WORKSPACE", "").strip():
        where += f", workspace {workspace}"
    digest = hashlib.sha256("\n".join([verb, where, *sorted(set(names))]).encode()).hexdigest()
    path = Path(tempfile.gettempdir(), f"mlflow-meta-{os.getuid()}-{digest[:16]}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TryLater(
                f"Another {verb} of {', '.join(names) or 'all experiments'} in {where} is at work "
                "on this machine; this one leaves it to that."
            ) from error
        yield
    finally:
        os.close(descriptor)
