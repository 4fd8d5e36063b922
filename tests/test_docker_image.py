"""The programs of docker/image/, each on its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

IMAGE = Path(__file__).parent.parent / "docker" / "image"


def run(*argv: str | Path, **given: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, **given)


def test_the_health_check_asks_a_server_and_needs_none_for_a_database() -> None:
    def check(uri: str) -> int:
        return run(
            sys.executable, IMAGE / "healthy.py", env={"MLFLOW_TRACKING_URI": uri}
        ).returncode

    assert check("http://127.0.0.1:1") == 1
    assert check("sqlite:///mlflow.db") == 0


def test_a_champion_that_can_not_be_served_ends_the_container(
    client: MlflowClient, sqlite_uri: str, tmp_path: Path
) -> None:
    client.create_registered_model("m")
    version = client.create_model_version("m", source=(tmp_path / "model").as_uri()).version
    client.set_registered_model_alias("m", "champion", version)
    fake = tmp_path / "mlflow"
    fake.write_text('#!/bin/sh\necho "$@"\nexit 7\n')
    fake.chmod(0o755)
    done = run(
        sys.executable,
        IMAGE / "serve_champion.py",
        *("60", "models:/m@champion", "--port=1"),
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "MLFLOW_TRACKING_URI": sqlite_uri},
        timeout=60,
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.split() == [
        "models",
        "serve",
        "--model-uri",
        "models:/m@champion",
        "--port=1",
    ]
