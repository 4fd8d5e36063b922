"""Tests of time and money: `suggest --budget`, `--max-duration`, `--per-hour`, `--hardware`."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_meta.cli import main
from mlflow_meta.store import names

T0_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def timed_uri(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """30 runs on two GPUs; an epoch takes a minute on one of them, and a tenth on the other."""
    path = tmp_path_factory.mktemp("timed") / "mlflow.db"
    shutil.copy(empty_database, path)
    uri = f"sqlite:///{path}"
    client, rng = MlflowClient(tracking_uri=uri), np.random.default_rng(0)
    experiment_id = client.create_experiment("timed")
    for i in range(30):
        lr, epochs, gpu = 10 ** rng.uniform(-4, 0), int(rng.integers(1, 50)), ("T4", "A100")[i % 2]
        start = T0_MS + i * 10_000_000
        run = client.create_run(experiment_id, start, {f"{names.HARDWARE}gpu_model": gpu})
        run_id = run.info.run_id
        client.log_param(run_id, "lr", lr)
        client.log_param(run_id, "epochs", epochs)
        client.log_metric(run_id, "val_loss", (np.log10(lr) + 2) ** 2 + 0.3 / epochs**0.5)
        took_ms = int(60_000 * epochs * (0.1 if gpu == "A100" else 1.0) * rng.lognormal(0, 0.05))
        client.set_terminated(run_id, end_time=start + took_ms)
    for command in (["harvest"], ["train", "--metric", "val_loss", "--kind", "transfer"]):
        assert CliRunner().invoke(main, [*command, "--tracking-uri", uri]).exit_code == 0
    return uri


@pytest.fixture
def uri(timed_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", timed_uri)
    return timed_uri


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["suggest", "-e", "timed", *args])


def found(*args: str) -> list[dict]:
    result = run("--json", *args)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["suggestions"]


def seconds(suggestions: list[dict]) -> list[float]:
    return [s["duration_s"] for s in suggestions]


def test_runs_are_suggested_within_a_budget_and_say_how_long_they_take(uri: str) -> None:
    free = seconds(found("-n", "4", "--dry-run"))
    budget = sum(free) / 3
    few = run("-n", "50", "--budget", f"{budget:.0f}s", "--dry-run")
    assert "The time that was given holds no more than" in few.stderr
    scheduled = found("-n", "4", "--budget", f"{budget:.0f}s")
    assert 0 < sum(seconds(scheduled)) <= budget
    saved = MlflowClient(tracking_uri=uri).get_run(scheduled[0]["run_id"])
    shown = saved.data.metrics[names.PREDICTED_DURATION]
    assert shown == pytest.approx(scheduled[0]["duration_s"], rel=1e-5)
    epochs = int(saved.data.params["epochs"])
    best_gpu_s = 60 * epochs * 0.1  # the task's best run tells the hardware
    assert 0.5 * best_gpu_s < shown < 2 * 60 * epochs
    assert "It is expected to train for **" in saved.data.tags["mlflow.note.content"]
    again = run("--from", scheduled[0]["run_id"])
    assert "it finds the same, bit for bit" in again.output


def test_no_run_is_longer_than_it_may_be_and_money_is_counted_by_the_hour(uri: str) -> None:
    longest = min(seconds(found("-n", "4", "--dry-run"))) / 2
    result = run("-n", "3", "--max-duration", f"{longest}s", "--price", "36", "--dry-run")
    assert result.exit_code == 0, result.output
    cost = re.search(r"All 3 are expected to take .*, and to cost ([\d.]+)\.", result.stdout)
    assert cost
    kept = seconds(found("-n", "3", "--max-duration", f"{longest}s", "--dry-run"))
    assert max(kept) <= longest
    said = run("--json", "-n", "3", "--max-duration", f"{longest}s", "--price", "36", "--dry-run")
    assert json.loads(said.stdout)["cost"] == pytest.approx(sum(kept) / 100)
    assert float(cost[1]) == pytest.approx(sum(kept) / 100, rel=1e-2)


def test_per_hour_is_another_question_with_other_suggestions(uri: str) -> None:
    plain, per_hour = (found("-n", "5", "--dry-run", *more) for more in ([], ["--per-hour"]))
    assert [s["params"] for s in plain] != [s["params"] for s in per_hour]


def test_what_if_it_ran_on_another_gpu(uri: str) -> None:
    both = [
        seconds(found("-n", "3", "--where", "epochs=40..49", "--dry-run", "--hardware", f"gpu={g}"))
        for g in ("T4", "a100")
    ]
    assert 5 < np.mean(both[0]) / np.mean(both[1]) < 20  # ten times, as it was made


def test_hardware_that_nothing_is_known_of_is_an_error_that_says_what_is(uri: str) -> None:
    result = run("--hardware", "gpu=H100", "--dry-run")
    assert result.exit_code == 1
    assert "No run has the gpu_model 'H100'" in result.stderr
    assert "Runs have 'A100', 'T4'." in result.stderr
    result = run("--hardware", "memory_gb=64", "--dry-run")
    assert "No run says its memory_gb" in result.stderr
    result = run("--hardware", "colour=red", "--dry-run")
    assert result.exit_code == 2
    assert "'colour=red' says nothing of hardware" in result.stderr


def test_a_time_in_which_nothing_can_be_trained_says_the_shortest(uri: str) -> None:
    result = run("--max-duration", "1s", "--dry-run")
    assert result.exit_code == 1
    assert re.search(
        r"No configuration is predicted to take at most 1.0 s: the shortest of", result.stderr
    )


def test_suggestions_for_two_objectives_say_their_front_and_are_repeated_bit_for_bit(
    uri: str,
) -> None:
    scheduled = found("-n", "6", "--also", "duration")
    alone = found("-n", "6", "--dry-run")
    assert min(seconds(scheduled)) < min(seconds(alone))  # the front reaches to short runs
    assert {s["front"] for s in scheduled} >= {1}
    assert all(s["others"]["duration"] > 0 for s in scheduled)
    saved = MlflowClient(tracking_uri=uri).get_run(scheduled[0]["run_id"]).data
    assert saved.metrics[names.FRONT] == scheduled[0]["front"]
    assert "Expected too: `duration`" in saved.tags["mlflow.note.content"]
    assert "bit for bit" in run("--from", scheduled[0]["run_id"]).output
    batch = saved.tags[names.SUGGEST_RUN]
    files = {file.path for file in MlflowClient(tracking_uri=uri).list_artifacts(batch)}
    assert {names.FRONT_FILE, names.REPORT_FILE} <= files
    said = run("-n", "2", "--also", "duration", "--dry-run").stdout
    assert re.search(r"takes\s+front", said)


def test_a_further_objective_must_be_known_and_have_a_direction(uri: str) -> None:
    refused = run("--also", "size", "--dry-run")
    assert "No run has the metric 'size'" in refused.stderr
    assert "duration or one of val_loss" in refused.stderr
    refused = run("--also", "duration", "--budget", "2h", "--dry-run")
    assert refused.exit_code == 2
    assert "leave out --budget" in refused.stderr


def test_what_is_predicted_of_time_is_no_result_of_a_run(uri: str) -> None:
    shown = CliRunner().invoke(main, ["harvest", "--list-metrics"])
    assert shown.exit_code == 0
    assert "val_loss" in shown.stdout
    assert names.PREDICTED_DURATION not in shown.stdout


def test_cycle_and_tune_keep_to_limits_of_time_too(uri: str, tmp_path: Path) -> None:
    longest = min(seconds(found("-n", "4", "--dry-run"))) / 2
    path = shutil.copy(uri.removeprefix("sqlite:///"), tmp_path / "own.db")
    client, at = MlflowClient(f"sqlite:///{path}"), ["--tracking-uri", f"sqlite:///{path}"]
    waited = {run.info.run_id for run in waiting(client)}
    limits = ["--metric", "val_loss", "--max-duration", f"{longest}s"]
    cycle = ["cycle", "-e", "timed", "--kind", "transfer", *limits, *at]
    for n in (1, 3):
        done = CliRunner().invoke(main, [*cycle, "-n", str(len(waited) + n)])
        assert done.exit_code == 0, done.output
    assert f"Scheduled 2 runs, beside {len(waited) + 1} that waited already." in done.stdout
    added = [run for run in waiting(client) if run.info.run_id not in waited]
    assert len(added) == 3
    assert max(run.data.metrics[names.PREDICTED_DURATION] for run in added) <= longest
    program = ["--", sys.executable, "-c", "pass"]
    tune = ["tune", "-e", "timed", "--json", "-n", "2", "--rounds", "1", *limits, *at, *program]
    done = CliRunner().invoke(main, tune)
    assert done.exit_code == 0, done.output
    (turn,) = json.loads(done.stdout)["rounds"]
    trained = [client.get_run(run_id) for run_id in turn["run_ids"]]
    assert len(trained) == 2
    assert max(run.data.metrics[names.PREDICTED_DURATION] for run in trained) <= longest


def test_cycle_says_that_no_limit_is_kept_where_nothing_is_known_yet(sqlite_uri: str) -> None:
    client = MlflowClient(sqlite_uri)
    experiment_id = client.create_experiment("young")
    for lr in ("0.1", "0.01"):
        run_id = client.create_run(experiment_id).info.run_id
        client.log_param(run_id, "lr", lr)
        client.log_metric(run_id, "val_loss", float(lr))
        client.set_terminated(run_id)
    command = ["cycle", "-e", "young", "-n", "2", "--metric", "val_loss", "--budget", "1h"]
    done = CliRunner().invoke(main, [*command, "--tracking-uri", sqlite_uri])
    assert done.exit_code == 0, done.output
    assert "these may exceed the limits of time" in done.stderr


def waiting(client: MlflowClient) -> list[Run]:
    experiment_id = client.get_experiment_by_name("timed").experiment_id
    return [r for r in client.search_runs([experiment_id]) if r.info.status == "SCHEDULED"]
