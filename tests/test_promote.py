"""Champion and challenger in a real registry: promotion, drift, rollback, and the way back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import add_run
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_meta import harvest, promote, train
from mlflow_meta.cli import main
from mlflow_meta.errors import Damaged, StoreRefused
from mlflow_meta.gate import MIN_LATER, Verdict
from mlflow_meta.served import seal
from mlflow_meta.store import MlflowStore, registry

NAME = "mlflow-meta-loss"


def logged(
    client: MlflowClient,
    n: int,
    seed: int,
    *,
    name: str = "bowl",
    sign: float = 1.0,
) -> None:
    """Runs of an experiment, whose loss is a bowl of the learning rate, or a hill if `sign < 0`."""
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found else client.create_experiment(name)
    rng = np.random.default_rng(seed)
    for _ in range(n):
        exponent, wd = rng.uniform(-4, 0), rng.uniform(0, 1)
        loss = 20 + sign * ((exponent + 2) ** 2 + wd + rng.normal(0, 0.05))
        params = {"lr": 10**exponent, "wd": wd}
        add_run(client, experiment, params=params, metrics={"loss": loss})


@pytest.fixture
def store(client: MlflowClient, sqlite_uri: str) -> MlflowStore:
    """Forty runs, and a champion that knows them: version 1."""
    logged(client, 40, 0)
    store = MlflowStore(sqlite_uri)
    harvest(store)
    assert trained(store).decision.verdict is Verdict.FIRST
    return store


def trained(store: MlflowStore, **options: bool):
    return train(store, metric="loss", kinds=["extra_trees"], **options)


def mislearned(store: MlflowStore, client: MlflowClient) -> None:
    """Have a champion, version 2, that knows nothing but runs with the wrong sign."""
    experiment = client.get_experiment_by_name("bowl").experiment_id
    right = [run.info.run_id for run in client.search_runs([experiment])]
    for run_id in right:
        client.delete_run(run_id)
    logged(client, 40, 1, sign=-1.0)
    harvest(store)
    assert trained(store, promote=True).champion == "2"
    for run in client.search_runs([experiment]):
        client.delete_run(run.info.run_id)
    for run_id in right:
        client.restore_run(run_id)


def folder_of(client: MlflowClient, run_id: str) -> Path:
    """The model of a training."""
    return Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://")) / "model"


def champion_of(client: MlflowClient) -> str:
    return str(client.get_model_version_by_alias(NAME, "champion").version)


def run(store: MlflowStore, *args: str) -> Result:
    result = CliRunner().invoke(main, args, env={"MLFLOW_TRACKING_URI": store.uri})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_training_without_later_runs_leaves_the_champion(
    store: MlflowStore, client: MlflowClient
) -> None:
    again = trained(store)
    assert (again.version, again.champion) == ("2", "1")
    assert again.decision.verdict is Verdict.TOO_FEW
    version = client.get_model_version(NAME, "2")
    assert version.tags["mlflow_meta.gate"] == Verdict.TOO_FEW.value
    assert champion_of(client) == "1"
    assert client.get_model_version_by_alias(NAME, "challenger").version == version.version
    told = run(store, "train", "--metric", "loss", "--kind", "extra_trees")
    assert "Version 1 stays the champion" in told.stderr
    assert f"mlflow-meta promote --model-name {NAME} --version 3" in told.stderr
    assert trained(store, promote=True).champion == "4" == champion_of(client)


def test_a_version_that_predicts_later_runs_better_takes_over_and_says_why(
    sqlite_uri: str, client: MlflowClient
) -> None:
    store = MlflowStore(sqlite_uri)
    logged(client, 20, 0)  # of which little can be learned
    harvest(store)
    trained(store)
    logged(client, 100, 1)
    harvest(store)
    found = trained(store)
    assert found.decision.verdict is Verdict.BETTER
    assert found.champion == "2" == champion_of(client)
    tags = client.get_model_version(NAME, "2").tags
    assert tags["mlflow_meta.gate"] == "promoted: it predicts later runs better than the champion"
    assert int(tags["mlflow_meta.gate.n_later"]) == 100
    assert 0 < float(tags["mlflow_meta.gate.gain_low"]) < float(tags["mlflow_meta.gate.gain"])
    assert tags["mlflow_meta.gate.champion_before"] == "1"


def test_a_champion_that_drifts_is_rolled_back_within_two_cycles(
    store: MlflowStore, client: MlflowClient
) -> None:
    mislearned(store, client)
    for turn in range(1, 3):
        logged(client, 6, 10 + turn)
        harvest(store, ["bowl"])
        found = promote(store, metric="loss")
        if found.champion != "2":
            break
    assert found.has_drifted and turn == 2
    assert found.champion == "1" == champion_of(client)
    assert found.decisions["1"].verdict is Verdict.ROLLED_BACK
    assert (
        "version 1 took over again" in client.get_model_version(NAME, "2").tags["mlflow_meta.drift"]
    )
    logged(client, 2 * MIN_LATER, 20)
    harvest(store, ["bowl"])
    after = promote(store, metric="loss")
    assert after.champion == "1"
    assert "2" not in after.decisions  # who has drifted does not come back by itself


def test_a_challenger_is_compared_again_when_more_runs_are_known(
    store: MlflowStore, client: MlflowClient
) -> None:
    logged(client, MIN_LATER - 2, 1)
    harvest(store)
    assert trained(store).decision.verdict is Verdict.TOO_FEW
    told = json.loads(run(store, "promote", "--metric", "loss", "--json").stdout)
    assert (told["champion"], told["verdicts"]) == ("1", {"2": Verdict.TOO_FEW.value})
    logged(client, 40, 2)
    harvest(store)
    looked = run(store, "promote", "--metric", "loss", "--dry-run")
    assert "Nothing was written" in looked.stderr
    assert champion_of(client) == "1"
    decision = promote(store, metric="loss").decisions["2"]
    assert decision.verdict is not Verdict.TOO_FEW
    assert decision.comparison is not None and decision.comparison.n == 40
    assert client.get_model_version(NAME, "2").tags["mlflow_meta.gate.n_later"] == "40"


def test_any_version_is_made_the_champion_by_hand_and_a_missing_one_is_refused(
    store: MlflowStore, client: MlflowClient
) -> None:
    trained(store)
    told = run(store, "promote", "--metric", "loss", "--version", "2")
    assert "Version 2: promoted by hand." in told.stdout
    assert champion_of(client) == "2"
    refused = run(store, "promote", "--metric", "loss", "--version", "9")
    assert refused.exit_code == 1
    assert "9" in refused.stderr
    assert champion_of(client) == "2"
    run(store, "promote", "--metric", "loss", "--version", "1")
    assert champion_of(client) == "1"


def test_a_damaged_version_never_becomes_the_champion(
    store: MlflowStore, client: MlflowClient, sqlite_uri: str
) -> None:
    training = trained(store)
    artifacts = client.get_run(training.run_id).info.artifact_uri.removeprefix("file://")
    (card,) = Path(artifacts).rglob("card.json")
    card.write_text(card.read_text()[:20])
    with pytest.raises(StoreRefused, match=r"Version 2 .* is damaged"):
        promote(store, metric="loss", version="2")
    assert champion_of(client) == "1"
    assert registry.champion(store, metric="loss").version == "1"


def test_a_version_of_which_any_file_was_changed_is_not_promoted(
    store: MlflowStore, client: MlflowClient, tmp_path: Path
) -> None:
    run_id = trained(store).run_id
    folder = folder_of(client, run_id)
    for path in ("serving.py", "code/mlflow_meta/trials.py", "MLmodel"):
        was = (folder / path).read_bytes()
        (folder / path).write_bytes(was + b"\n")
        refused = run(store, "promote", "--metric", "loss", "--version", "2")
        assert refused.exit_code == 1
        assert "Version 2 of the registered model 'mlflow-meta-loss' is damaged" in refused.stderr
        assert f"{path} has the SHA-256" in refused.stderr
        (folder / path).write_bytes(was)
    (folder / "serving.py").write_bytes(was)
    listed = folder / seal.SEAL
    listed.unlink()
    listed.write_bytes(seal.sealed(seal.folder(folder)))
    with pytest.raises(Damaged, match=r"sha256\.json is of the SHA-256 .* its version's tag says"):
        promote(store, metric="loss", version="2")
    tags = client.get_model_version(NAME, "2").tags
    client.create_model_version(NAME, str(tmp_path), run_id, tags=tags)
    with pytest.raises(Damaged, match=r"Version 3 .* leads to .*, and was registered from"):
        promote(store, metric="loss", version="3")
    assert champion_of(client) == "1"


def test_a_damaged_champion_gives_way_to_a_new_one_and_to_one_by_hand(
    store: MlflowStore, client: MlflowClient
) -> None:
    trained(store, promote=True)
    folder = folder_of(client, client.get_model_version(NAME, "2").run_id)
    (folder / seal.DATA / "card.json").write_text("{}")
    with pytest.raises(Damaged, match=r"Version 2 .*/card\.json has the SHA-256"):
        promote(store, metric="loss")
    promote(store, metric="loss", version="1")
    assert champion_of(client) == "1"
    client.set_registered_model_alias(NAME, "champion", "2")
    assert trained(store).decision.verdict is Verdict.DAMAGED
    assert champion_of(client) == "3"


def test_a_version_that_was_deleted_ends_the_way_back(
    store: MlflowStore, client: MlflowClient
) -> None:
    mislearned(store, client)
    client.delete_model_version(NAME, "1")
    with pytest.raises(MlflowException):
        client.get_model_version(NAME, "1")
    logged(client, 20, 2)
    harvest(store, ["bowl"])
    found = promote(store, metric="loss")
    assert found.has_drifted
    assert found.champion == "2"
    told = run(store, "promote", "--metric", "loss")
    assert "No other version does better: train a new one." in told.stderr


def test_runs_of_a_task_that_the_champion_never_knew_are_no_drift(
    store: MlflowStore, client: MlflowClient
) -> None:
    logged(client, 40, 1, name="hill", sign=-1.0)
    harvest(store)
    found = promote(store, metric="loss")
    assert (found.n_later, found.has_drifted, found.champion) == (0, False, "1")
