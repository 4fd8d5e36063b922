"""Reports as files, and what a batch of suggestions keeps beside its plan."""

import json
import logging
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from test_shown import is_safe

from mlflow_meta.cli import main
from mlflow_meta.scheduling import Decision, scheduled_once, swept_ledger
from mlflow_meta.services.explore import explore
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.suggest import suggest
from mlflow_meta.services.train import train
from mlflow_meta.store import MlflowStore, plans
from mlflow_meta.store.suggested import item
from mlflow_meta.trials import Direction, Objective, Suggestion

pytestmark = pytest.mark.slow


def test_a_report_is_a_page_or_a_picture_by_its_name_and_needs_no_champion(
    store: MlflowStore, tmp_path: Path
) -> None:
    harvest(store)
    explore(store, "sweep-a", n=2, metric="val_loss")
    command = ["report", "-e", "sweep-a", "--tracking-uri", store.uri, "--out"]
    for name, start in (("a.html", b"<!doctype html>"), ("a.png", b"\x89PNG")):
        done = CliRunner().invoke(main, [*command, str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        assert (tmp_path / name).read_bytes().startswith(start)
    text = (tmp_path / "a.html").read_text()
    assert "Nobody can say which params matter: There is no meta-model" in text
    assert "0 finished, 2 waiting" in text
    refused = CliRunner().invoke(main, [*command, str(tmp_path / "a.txt")])
    assert refused.exit_code == 2
    assert "makes .html or .png" in refused.output


def test_a_batch_without_a_champion_or_without_any_run_before_has_its_report_too(
    store: MlflowStore, client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.create_experiment("fresh", artifact_location=f"{store.uri[10:]}-artifacts")
    harvest(store)
    batches = [explore(store, name, n=2, metric="val_loss") for name in ("sweep-a", "fresh")]
    train(store, metric="val_loss")
    batches.append(suggest(store, "fresh", n=2))
    for batch in batches:
        text = store.file(batch.run_id, "report.html").decode()
        assert "0 finished, 2 waiting" in text
        assert ("These suggestions cover" in text.replace("these", "These")) == (not batch.model)
    assert "no report" not in caplog.text


def test_a_drawing_that_fails_does_not_keep_a_suggestion_from_its_run(
    store: MlflowStore, client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    objective = Objective(metric="val_loss", direction=Direction.MINIMIZE)
    one = Suggestion(rank=1, config={"lr": 0.1}, mean=0.5, std=0.1, low=0.4, high=0.6)
    space = {"lr": {"type": "float", "low": 0.01, "high": 1.0, "log": True}}
    about = {
        "experiment_name": "sweep-a", "task": "sweep-a", "tasks_by": "default",
        "objective": objective.to_dict(), "best_so_far": 0.4, "space": space, "never_logged": [],
        "found": [{"rank": 1, "config": {"lr": 0.1}, "mean": 0.5, "std": 0.1, "low": 0.4,
                   "high": 0.6}], "remarks": [],
    }  # fmt: skip

    def draw() -> dict[str, bytes]:
        raise ZeroDivisionError("a chart without width")

    def decide(_: int) -> Decision:
        items = [item(one, objective, "sweep-a", note="why", tags={})]
        return Decision(items=items, about=about, tags={}, draw=draw)

    ledger = swept_ledger(store, "sweep-a", dry_run=False)
    with caplog.at_level(logging.WARNING, "mlflow_meta"):
        found = scheduled_once(store, ledger, {"asked": 1}, decide, dry_run=False)
    assert client.get_run(found.run_ids[0]).info.status == "SCHEDULED"
    assert "The suggestions have no report: ZeroDivisionError" in caplog.text
    assert [f.path for f in client.list_artifacts(found.run_id)] == ["suggestions.json"]
    assert plans.read(store, found.run_id).items


def test_an_error_about_a_hostile_name_moves_no_cursor(store: MlflowStore) -> None:
    name = "\x1b[2Jsweep\x1b]0;title\x07\u202e"
    done = CliRunner().invoke(main, ["report", "-e", name, "--tracking-uri", store.uri])
    assert done.exit_code == 1
    assert is_safe(done.output.replace("\n", ""))
    assert r"\x1b[2Jsweep" in done.output


def test_json_of_a_hostile_experiment_is_plain(store: MlflowStore, client: MlflowClient) -> None:
    client.create_experiment("\x1b[31mred")
    done = CliRunner().invoke(main, ["doctor", "--json", "--tracking-uri", store.uri])
    assert is_safe(done.stdout.replace("\n", ""))
    assert json.loads(done.stdout)["ok"]
