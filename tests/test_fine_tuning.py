"""Fine-tuning: a part of the space is searched, and the champion takes in what is new."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import add_run, fill
from mlflow import MlflowClient
from trainer import loss

from mlflow_meta import harvest, suggest, train, tune
from mlflow_meta.cli import main
from mlflow_meta.errors import BadSpace
from mlflow_meta.services.update import update
from mlflow_meta.store import MlflowStore, registry
from mlflow_meta.trials import Config

TRAINER = [sys.executable, str(Path(__file__).with_name("trainer.py"))]
NAME = "mlflow-meta-val_loss"


def run(store: MlflowStore, *args: str) -> Result:
    result = CliRunner().invoke(main, args, env={"MLFLOW_TRACKING_URI": store.uri})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def template(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the runs of `fill`, harvested, and a champion: tests copy it."""
    path = tmp_path_factory.mktemp("trained") / "mlflow.db"
    shutil.copy(empty_database, path)
    fill(MlflowClient(tracking_uri=f"sqlite:///{path}"), path.parent)
    store = MlflowStore(f"sqlite:///{path}")
    harvest(store)
    train(store, metric="val_loss")
    return path


@pytest.fixture
def trained(template: Path, sqlite_uri: str) -> MlflowStore:
    """A store of its own with what `template` has; `client` looks at it too."""
    shutil.copy(template, sqlite_uri.removeprefix("sqlite:///"))
    return MlflowStore(sqlite_uri)


def configs(store: MlflowStore, experiment_name: str, seed: int = 1, **options) -> list[Config]:
    found = suggest(
        store, experiment_name, dry_run=True, rng=np.random.default_rng(seed), **options
    )
    return [dict(item.config) for item in found.items]


def add_mlp(client: MlflowClient, name: str, n: int, **more: object) -> list[str]:
    """`n` runs of the trainer's mlp, as a person would have made them; their ids."""
    experiment = client.get_experiment_by_name(name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
    run_ids = []
    for i in range(n):
        params = {"model": "mlp", "lr": 10 ** (-3 + 2 * i / n), "units": 2 ** (3 + i % 6)}
        value = loss("mlp", params["lr"], None, params["units"])
        metrics = {"val_loss": value}
        run_ids.append(add_run(client, experiment_id, params={**params, **more}, metrics=metrics))
    return run_ids


def champions(client: MlflowClient) -> dict[str, list[str]]:
    """Version -> its aliases."""
    return {
        str(version.version): sorted(client.get_model_version(NAME, version.version).aliases)
        for version in client.search_model_versions(f"name = '{NAME}'")
    }


def own_runs(client: MlflowClient, kind: str) -> list[dict[str, str]]:
    """The params of our own finished runs of a kind."""
    experiment = client.get_experiment_by_name("mlflow-meta")
    found = client.search_runs(
        [experiment.experiment_id],
        f"tags.`mlflow_meta.kind` = '{kind}' and attributes.status = 'FINISHED'",
    )
    return [run.data.params for run in found]


# A part of the space


def test_tune_keeps_to_a_part_and_trains_once(store: MlflowStore, client: MlflowClient) -> None:
    options = ["--metric", "val_loss", "--rounds", "3", "-n", "1", "--seed", "3"]
    where = ["--where", "model=mlp", "--where", "lr=1e-3..0.1", "--where", "units=32,64"]
    result = run(store, "tune", "-e", "sweep-a", "--json", *options, *where, "--", *TRAINER)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    for turn in found["rounds"]:
        (run_id,) = turn["run_ids"]
        params = client.get_run(run_id).data.params
        assert params["model"] == "mlp" and params["units"] in ("32", "64")
        assert 1e-3 <= float(params["lr"]) <= 0.1 and "depth" not in params
    assert [turn["version"] for turn in found["rounds"]] == ["1", "2", "3"]
    # Too few runs are new for another champion.
    assert [turn["updated_from"] for turn in found["rounds"]] == [None, "1", "1"]
    assert champions(client) == {"1": ["champion"], "2": [], "3": ["challenger"]}
    assert len(own_runs(client, "train")) == 1
    updates = own_runs(client, "update")
    assert sorted((u["updated_from"], u["n_new"]) for u in updates) == [("1", "1"), ("1", "2")]
    assert found["n_before"] == 24


def test_a_part_is_searched_for_its_own_best(trained: MlflowStore) -> None:
    for where, holds in (
        (["model=tree"], lambda c: c["model"] == "tree" and "units" not in c),
        (["units=8"], lambda c: c.get("units", 8) == 8),
        (["lr=..1e-3", "model=mlp"], lambda c: c["lr"] <= 1e-3),
    ):
        found = configs(trained, "sweep-a", n=4, where=where)
        assert len(found) == 4
        assert all(holds(config) for config in found)
    assert np.median([c["lr"] for c in found]) > 3e-4  # of that part the best are at its edge


def test_a_part_of_a_space_file_is_searched(trained: MlflowStore, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("parameters: {lr: {type: float, low: 1.0e-9, high: 1.0, log: true}, "
                    "model: {type: categorical, choices: [mlp, tree, svm]}}")  # fmt: skip
    options = ["--space", str(path), "--where", "model=svm", "--where", "lr=..1e-5", "--dry-run"]
    found = json.loads(run(trained, "suggest", "-e", "sweep-a", "--json", *options).stdout)
    assert len(found["suggestions"]) == 5
    for s in found["suggestions"]:
        assert s["params"]["model"] == "svm" and s["params"]["lr"] <= 1e-5


def test_what_the_own_runs_never_varied_may_be_asked_for(
    trained: MlflowStore, client: MlflowClient
) -> None:
    add_mlp(client, "young", 12)  # by themselves they do not vary the model
    harvest(trained)
    assert all("model" not in config for config in configs(trained, "young"))
    found = configs(trained, "young", where=["model=mlp"])
    assert all(set(config) == {"model", "lr", "units"} for config in found)


@pytest.mark.parametrize("where", ["model", "=mlp", "model="])
def test_a_condition_that_is_none_is_wrong_usage(store: MlflowStore, where: str) -> None:
    for command in (["suggest", "-e", "sweep-a"], ["tune", "-e", "sweep-a"]):
        result = run(store, *command, "--where", where, *(["--", "true"] * (command[0] == "tune")))
        assert result.exit_code == 2
        assert "Invalid value for '--where': A condition is NAME=VALUES" in result.stderr


def test_what_the_space_lacks_is_told_with_what_it_has(trained: MlflowStore) -> None:
    result = run(trained, "suggest", "-e", "sweep-a", "--where", "modle=mlp")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no param 'modle' (did you mean model?)" in result.stderr
    result = run(trained, "suggest", "-e", "sweep-a", "--where", "model=svm")
    assert "Nothing is left of model where model=svm: it is one of mlp, tree" in result.stderr


def test_tune_tells_a_wrong_part_of_a_given_space_before_it_does_anything(
    store: MlflowStore, client: MlflowClient, tmp_path: Path
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("parameters: {lr: {type: float, low: 0.1, high: 1.0}}")
    options = ["--space", str(path), "--where", "lr=2..3", "--", "true"]
    result = run(store, "tune", "-e", "sweep-a", "--metric", "val_loss", *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Nothing is left of lr where lr=2..3: it is a number from 0.1 to 1." in result.stderr
    assert client.get_experiment_by_name("mlflow-meta") is None


# What is new


def test_suggest_takes_newer_runs_in_and_registers_nothing(
    trained: MlflowStore, client: MlflowClient
) -> None:
    before = suggest(trained, "sweep-a", dry_run=True, rng=np.random.default_rng(0))
    assert (before.n_unseen, before.has_signal) == (0, True)
    add_mlp(client, "sweep-a", 5)
    harvested = harvest(trained)
    found = suggest(trained, "sweep-a", n=2, rng=np.random.default_rng(0))
    assert (found.n_unseen, found.model) == (5, f"{NAME} v1")
    assert champions(client) == {"1": ["challenger", "champion"]}
    for run_id in found.run_ids:
        tags = client.get_run(run_id).data.tags
        assert tags["mlflow_meta.harvest_run"] == harvested.run_id
        assert "(transfer), updated with 5 newer runs." in tags["mlflow.note.content"]
    told = run(trained, "suggest", "-e", "sweep-a", "--dry-run")
    assert "Updated with 5 newer runs before the search." in told.stderr


def test_an_update_in_memory_suggests_what_a_registered_one_does(
    trained: MlflowStore, client: MlflowClient
) -> None:
    add_mlp(client, "sweep-a", 5)
    add_mlp(client, "young", 3)
    harvested = harvest(trained)
    in_memory = configs(trained, "young")
    done = update(trained, "young", metric="val_loss", promote=True)
    assert (done.updated_from, done.version, done.n_new) == ("1", "2", 8)
    assert champions(client) == {"1": [], "2": ["challenger", "champion"]}
    champion = registry.champion(trained, metric="val_loss")
    assert (champion.harvest_run_id, champion.run_id) == (harvested.run_id, done.run_id)
    assert configs(trained, "young") == in_memory
    again = update(trained, "young", metric="val_loss", promote=True)
    assert (again.run_id, again.version, again.n_new) == (done.run_id, "2", 0)
    assert champions(client) == {"1": [], "2": ["challenger", "champion"]}


def test_a_param_that_is_new_is_searched_but_no_feature(
    trained: MlflowStore, client: MlflowClient
) -> None:
    for i in range(8):
        add_mlp(client, "sweep-a", 2, dropout=i / 10)
    harvest(trained)
    found = suggest(trained, "sweep-a", dry_run=True, where=["model=mlp"])
    assert found.n_unseen == 16
    assert not found.never_logged
    assert update(trained, "sweep-a", promote=True).n_new == 16
    champion = registry.champion(trained, metric="val_loss")
    assert "params.dropout" not in champion.model.encoder.names


def test_a_champion_of_some_experiments_takes_in_no_others_but_the_target(
    store: MlflowStore, client: MlflowClient
) -> None:
    add_mlp(client, "young", 4)
    harvest(store)
    train(store, metric="val_loss", experiment_names=["sweep-b"])
    assert suggest(store, "sweep-b", dry_run=True).n_unseen == 0
    assert suggest(store, "sweep-a", dry_run=True).n_unseen == 24
    assert update(store, "young", promote=True).n_new == 4
    assert set(registry.champion(store).model.scales) == {"sweep-b", "young"}


def test_a_harvest_of_fewer_tasks_makes_the_champion_forget_none(
    trained: MlflowStore, client: MlflowClient
) -> None:
    first = registry.champion(trained).harvest_run_id
    add_mlp(client, "sweep-a", 2)
    harvest(trained, ["sweep-a"])
    assert update(trained, "sweep-a", promote=True).n_new == 2
    champion = registry.champion(trained)
    assert set(champion.model.scales) == {"sweep-a", "sweep-b"}
    assert champion.harvest_run_id == first
    assert update(trained, "sweep-a", promote=True).n_new == 0
    assert suggest(trained, "sweep-b", dry_run=True).n_unseen == 0


def test_an_unlike_part_is_no_reason_to_search_elsewhere(trained: MlflowStore) -> None:
    with pytest.raises(BadSpace, match="left of depth: it exists only where model is tree"):
        suggest(trained, "sweep-a", where=["model=mlp", "depth=4"])


@pytest.mark.slow
def test_tune_trains_again_until_good_can_be_told_from_bad(
    store: MlflowStore, client: MlflowClient
) -> None:
    noise = client.create_experiment("noise")
    values = np.random.default_rng(1).normal(size=12)
    for i, value in enumerate(values):
        add_run(client, noise, params={"x": i / 12}, metrics={"noise_loss": float(value)})
    code = "import mlflow\nwith mlflow.start_run(): mlflow.log_metric('noise_loss', 0.5)"
    done = tune(store, "noise", [sys.executable, "-c", code], rounds=2, n=1, metric="noise_loss")
    assert [turn.updated_from for turn in done.rounds] == [None, None]
    told = run(store, "suggest", "-e", "noise", "--dry-run")
    assert "can't tell good from bad" in told.stderr
    assert "mlflow-meta train --metric noise_loss" in told.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("n", "updated_from"), [(11, "1"), (12, None)])
def test_tune_trains_again_when_as_many_runs_are_new_as_it_was_trained_on(
    sqlite_uri: str, client: MlflowClient, n: int, updated_from: str | None
) -> None:
    tiny = client.create_experiment("tiny")
    for i in range(12):
        add_run(client, tiny, params={"x": i / 12}, metrics={"val_loss": i / 12})
    store = MlflowStore(sqlite_uri)
    done = tune(store, "tiny", ["true"], rounds=2, n=n, metric="val_loss")
    assert [turn.updated_from for turn in done.rounds] == [None, updated_from]
    assert set(champions(client)) == ({"1", "2"} if updated_from is None else {"1"})
