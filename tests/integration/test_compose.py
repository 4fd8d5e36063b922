"""`docker/compose.yaml` runs: each service as it says, and the whole loop through all of them."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path

import boto3
import pytest
from compose import Stack, example, stack
from conftest import fill, need
from mlflow import MlflowClient
from mlflow.entities import Run
from processes import until
from servers import postgres_programs

TRAINER = Path(__file__).parents[1] / "trainer.py"
MODEL = "mlflow-meta-val_loss"


@pytest.mark.slow
@pytest.mark.postgres
def test_the_loop_runs_through_the_services_of_compose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(postgres_programs(), "no Postgres is installed (apt-get install postgresql)")
    need(shutil.which("curl"), "no curl is installed (apt-get install curl)")
    (tmp_path / "training").mkdir()
    shutil.copy(TRAINER, tmp_path / "training" / "train.py")
    training = str(tmp_path / "training")
    values = example(TRAINING_FOLDER=training, EXPERIMENT="sweep-a", POLL="1s", SUGGESTIONS="1")
    with stack(values, tmp_path) as running:
        for name in ("postgres", "storage", "create-bucket", "mlflow"):
            running.start(name)
            running.wait(name)
        url = f"http://127.0.0.1:{values['MLFLOW_PORT']}"
        client = MlflowClient(tracking_uri=url, registry_uri=url)
        experiment = fill(client, None, n=10)["sweep-a"]
        running.start("serving")
        until(lambda: "Waiting for models:/" in running.log("serving"), "serving waits")
        assert not running.is_healthy("serving")
        for name in ("scheduler", "worker"):
            running.start(name)
            running.wait(name)
        until(lambda: "all lines were run" in running.log("scheduler"), "the scheduler has done")
        assert "ended with 0: mlflow-meta cycle" in running.log("scheduler"), running.log(
            "scheduler"
        )
        running.wait("serving")
        assert ask(values)["low_80"] < ask(values)["high_80"]
        (run, *_) = until(
            lambda: trained(client, experiment), "a suggested run was trained", pause_s=0.5
        )
        assert "val_loss" in run.data.metrics
        check_artifacts(values, run, monkeypatch)
        check_changes_over(running, client, values)
        assert running.stop("worker") in (0, 143), running.log("worker")


def trained(client: MlflowClient, experiment: str) -> list[Run]:
    """Suggested runs that are finished."""
    wanted = "attributes.status = 'FINISHED' and tags.`mlflow_meta.rank` != ''"
    return list(client.search_runs([experiment], wanted))


def ask(values: dict[str, str]) -> dict[str, float]:
    """What the served champion says of a configuration."""
    body = {"dataframe_records": [{"model": "mlp", "lr": "0.03", "task": "sweep-a"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{values['SERVING_PORT']}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        (predicted,) = json.load(answer)["predictions"]
    return dict(predicted)


def check_artifacts(values: dict[str, str], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model, the harvest, and what a training has printed are in the S3 store."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, values[name])
    s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{values['S3_PORT']}")
    kept = [one["Key"] for one in s3.list_objects_v2(Bucket=values["S3_BUCKET"])["Contents"]]
    for wanted in (
        "/MLmodel",
        "/meta_dataset.parquet",
        f"/{run.info.run_id}/artifacts/training.log",
    ):
        assert any(key.endswith(wanted) for key in kept), (wanted, kept)


def check_changes_over(running: Stack, client: MlflowClient, values: dict[str, str]) -> None:
    """A new champion is served soon after it has become one."""
    first = client.get_model_version_by_alias(MODEL, "champion")
    second = client.create_model_version(MODEL, first.source, first.run_id, tags=first.tags)
    client.set_registered_model_alias(MODEL, "champion", second.version)
    until(lambda: f"version {second.version}." in running.log("serving"), "serving changes over")
    running.wait("serving")
    assert ask(values)["low_80"] < ask(values)["high_80"]
