"""`make nightly` runs the long versions of the tests."""

import os
import subprocess
import sys
from pathlib import Path

INTEGRATION = Path(__file__).parent / "integration"


def n_collected(*options: str) -> int:
    """How many trials of kills there are."""
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_META_NIGHTLY"}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *options]
    found = subprocess.run(
        [*command, INTEGRATION / "test_kills.py"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=INTEGRATION.parent.parent,
    )
    return found.stdout.count("test_kills.py::")


def test_the_option_gives_the_sizes_of_the_night() -> None:
    assert n_collected() < 20
    assert n_collected("--nightly") >= 100
