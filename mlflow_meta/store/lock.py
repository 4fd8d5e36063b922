"""One harvest at a time on one machine; the system lets go of the lock whatever becomes of us."""

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
def alone(what: str) -> Iterator[None]:
    """Hold the lock of `what` while the block runs.

    Nothing depends on it: two harvests at once, of two machines say, each write a whole one.

    Raises:
        TryLater: At once, if another process of this user holds it.
    """
    digest = hashlib.sha256(what.encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir(), f"mlflow-meta-{os.getuid()}-{digest}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TryLater(
                f"Another harvest of {what} is at work on this machine; this one leaves it to that."
            ) from error
        yield
    finally:
        os.close(descriptor)
