"""Whether a test runs at its nightly size, or at the one of every commit."""

import os


def nightly() -> bool:
    return os.environ.get("MLFLOW_META_NIGHTLY", "") not in ("", "0")
