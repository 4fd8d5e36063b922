"""The benchmark that holds out one store at a time, on stores of our own."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import add_run
from mlflow import MlflowClient

BENCHMARK = Path(__file__).parent / "benchmarks" / "strangers.py"


def fill(uri: str, scale: float) -> None:
    """Runs in which depth decides; their loss is in units of the store's own."""
    client = MlflowClient(uri)
    experiment = client.create_experiment("sweep")
    for depth in range(12):
        loss = scale * (depth - 4.5) ** 2
        add_run(client, experiment, params={"depth": depth}, metrics={"loss": loss})


@pytest.mark.slow
def test_each_store_is_ranked_by_what_the_others_taught(tmp_path: Path) -> None:
    for name, scale in (("a", 1.0), ("b", 1000.0), ("c", 7.0)):
        fill(f"sqlite:///{tmp_path / name}.db", scale)
    (tmp_path / "c.db.gz").write_bytes(gzip.compress((tmp_path / "c.db").read_bytes()))
    (tmp_path / "c.db").unlink()
    argv = [sys.executable, str(BENCHMARK), str(tmp_path), "--metric", "loss"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    header, *rows, mean = done.stdout.splitlines()
    kinds = header.split()[3:]
    assert [row.split()[:3] for row in rows] == [[name, "12", "1"] for name in "abc"]
    assert all(float(row.split()[3 + kinds.index("transfer")]) > 0.9 for row in rows)
    assert mean.startswith("mean ")
