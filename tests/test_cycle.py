"""`mlflow-meta cycle` as cron runs it, again and again, with real trainings in between."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import add_run
from mlflow import MlflowClient

from mlflow_meta import cycle
from mlflow_meta.cli import main
from mlflow_meta.cli.lock import alone
from mlflow_meta.loop import Cycle
from mlflow_meta.store import MlflowStore
from mlflow_meta.store.mlflow_runs import record_of
from mlflow_meta.store.queue import claim, finish, own_params

TRAINER = [sys.executable, str(Path(__file__).with_name("trainer.py"))]
CYCLE = ["cycle", "-e", "sweep-a", "--metric", "val_loss", "--kind", "linear"]

Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ask(filled_uri: str) -> Ask:
    """Run a command with `--json`; its exit code and answer."""

    def run(*args: str) -> tuple[int, dict[str, Any]]:
        options = ["--tracking-uri", filled_uri, "--json"]
        split = args.index("--") if "--" in args else len(args)
        result = CliRunner().invoke(main, [*args[:split], *options, *args[split:]])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, json.loads(result.stdout) if result.stdout else {}

    return run


def waiting(client: MlflowClient) -> int:
    experiment = client.get_experiment_by_name("sweep-a")
    found = client.search_runs([experiment.experiment_id], "attributes.status = 'SCHEDULED'")
    return len(found)


@pytest.mark.slow
def test_cycles_keep_suggestions_waiting_and_leave_out_what_need_not_be_done(
    ask: Ask, client: MlflowClient
) -> None:
    code, first = ask(*CYCLE, "-n", "3")
    assert code == 0
    assert (first["promotion"], first["version"], first["champion"]) == (None, "1", "1")
    assert first["verdict"] == "promoted: there was no champion"
    assert (first["n_waiting_before"], len(first["run_ids"]), waiting(client)) == (0, 3, 3)
    _, idle = ask(*CYCLE, "-n", "3")
    assert (idle["version"], idle["run_ids"], waiting(client)) == (None, [], 3)
    assert idle["remarks"] == [
        "No run is new to the meta-model: nothing was trained.",
        "3 suggestions wait already: none was added.",
    ]
    assert not (first["is_repeated"] or idle["is_repeated"])
    assert ask("work", "-e", "sweep-a", "--max-runs", "2", "--", *TRAINER)[0] == 0
    _, third = ask(*CYCLE, "-n", "3")
    assert (third["version"], third["champion"]) == ("2", "1")
    assert third["promotion"]["n_later"] == 2
    assert (third["n_waiting_before"], len(third["run_ids"]), waiting(client)) == (1, 2, 3)
    (seen,) = third["monitored"]
    assert (seen["n_suggested"], seen["n_ended"], seen["n_new"]) == (3, 2, 2)
    assert 0 <= seen["coverage_80"] <= 1


def test_what_a_person_has_rejected_makes_room_for_another(ask: Ask, client: MlflowClient) -> None:
    _, first = ask(*CYCLE, "-n", "2")
    rejected, kept = first["run_ids"]
    client.set_tag(rejected, "mlflow_meta.decision", "reject")
    _, second = ask(*CYCLE, "-n", "2")
    assert (second["n_waiting_before"], len(second["run_ids"])) == (1, 1)
    status = {r: client.get_run(r).info.status for r in (rejected, kept, *second["run_ids"])}
    assert list(status.values()) == ["KILLED", "SCHEDULED", "SCHEDULED"]
    _, third = ask(*CYCLE, "-n", "2")
    assert (third["n_waiting_before"], third["run_ids"]) == (2, [])


def test_a_cycle_of_too_few_runs_covers_the_space_until_they_are_enough(
    sqlite_uri: str, client: MlflowClient
) -> None:
    experiment = client.create_experiment("young")
    for i in range(4):
        add_run(client, experiment, params={"lr": 10.0**-i, "depth": i}, metrics={"loss": float(i)})
    store = MlflowStore(sqlite_uri)
    found = cycle(store, "young", metric="loss", n=2)
    assert (found.training, found.promotion) == (None, None)
    assert "there are 4. Train 4 more" in found.remarks[0]
    assert found.suggestions is not None and len(found.suggestions.run_ids) == 2
    assert not found.suggestions.model
    again = cycle(store, "young", metric="loss", n=2)
    assert (again.suggestions, again.n_waiting) == (None, 2)


def test_a_second_cycle_on_the_machine_leaves_at_once(ask: Ask, filled_uri: str) -> None:
    with alone("cycle", filled_uri, "sweep-a"):
        code, said = ask(*CYCLE)
    assert (code, said) == (75, {})


def test_a_cycle_says_in_words_what_it_did(filled_uri: str) -> None:
    options = ["--tracking-uri", filled_uri, "-n", "2"]
    told = CliRunner().invoke(main, [*CYCLE, *options])
    assert told.exit_code == 0, told.output
    for words in (
        "Harvested 48 runs",
        "No suggested run has ended yet.",
        "Trained mlflow-meta-val_loss version 1 on 48 runs, promoted: there was no champion.",
        "predicted val_loss",
        "Scheduled 2 runs.",
        "See them: ",
        "&viewStateShareKey=",
    ):
        assert words in told.stdout
    assert "Next: mlflow-meta work -e sweep-a" in told.stderr


def test_a_cycle_does_not_say_that_it_scheduled_what_was_suggested_before(
    ask: Ask, filled_uri: str, client: MlflowClient
) -> None:
    _, first = ask(*CYCLE, "-n", "2")
    # Somebody has deleted that they were suggested, but not that they are decided.
    for run_id in first["run_ids"]:
        client.delete_run(run_id)
    told = CliRunner().invoke(main, [*CYCLE, "-n", "2", "--tracking-uri", filled_uri])
    assert told.exit_code == 0, told.output
    assert "suggested before, and nothing was learned since: none was scheduled." in told.stdout
    assert "Scheduled" not in told.stdout
    assert waiting(client) == 0


def test_a_cycle_refills_what_is_taken_and_stops_where_all_has_failed(
    filled_uri: str, client: MlflowClient
) -> None:
    store = MlflowStore(filled_uri)

    def cycled() -> Cycle:
        return cycle(store, "sweep-a", metric="val_loss", n=2, kinds=["linear"])

    def configs(found: Cycle) -> set[str]:
        runs = [client.get_run(run_id) for run_id in found.suggestions.run_ids]
        return {str(sorted(own_params(record_of(run)).items())) for run in runs}

    def end(found: Cycle, status: str) -> None:
        for run_id in found.suggestions.run_ids:
            client.set_terminated(run_id, status)

    first = cycled()
    claims = [claim(store, run_id, tags={}) for run_id in first.suggestions.run_ids]
    second = cycled()
    assert second.n_waiting == 0 and waiting(client) == 2
    assert not configs(first) & configs(second)
    assert cycled().suggestions is None and waiting(client) == 2
    for claimed in claims:
        assert claimed and finish(store, claimed, "FAILED")
    end(second, "FAILED")
    stopped = cycled()
    assert stopped.suggestions is None and waiting(client) == 0
    assert "The last 3 suggested runs have all failed, so none was added" in stopped.remarks[-1]
    assert "mlflow-meta suggest -e sweep-a" in stopped.remarks[-1]
    end(second, "FINISHED")
    assert len(cycled().suggestions.run_ids) == waiting(client) == 2
