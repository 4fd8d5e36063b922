"""Tests for models/signal.py: noise is refused, and how much more it takes is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import add_run
from mlflow import MlflowClient
from scipy.spatial.distance import cdist, pdist

from mlflow_meta.cli import main
from mlflow_meta.models.baselines import BASELINES
from mlflow_meta.models.signal import signal
from mlflow_meta.services.explore import explore
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.train import train
from mlflow_meta.store import MlflowStore, queue, registry
from mlflow_meta.store.ledger import Ledger

TASKS = np.array(["a"] * 15 + ["b"] * 15, dtype=object)


def test_chance_is_accepted_as_often_as_it_should_be_and_a_relation_always() -> None:
    rng = np.random.default_rng(0)
    y, noise = rng.normal(size=(100, 30)), rng.normal(size=(100, 30))
    accepted = [signal(TASKS, *pair).is_accepted for pair in zip(y, noise, strict=True)]
    assert np.mean(accepted) <= 0.1
    found = [signal(TASKS, a, a + b) for a, b in zip(y, 0.5 * noise, strict=True)]
    assert all(one.is_accepted and one.n_more == 0 for one in found)


def test_so_many_more_trials_as_it_says_mostly_show_a_weak_relation() -> None:
    rng = np.random.default_rng(0)
    told, n_shown, n_asked = [], 0, 0
    for _ in range(60):
        y = rng.normal(size=30)
        first = signal(TASKS, y, 0.25 * y + rng.normal(size=30))
        if not first.n_more:
            continue
        told.append(first.n_more)
        many = np.repeat("a", 30 + min(first.n_more, 2000)).astype(object)
        y = rng.normal(size=len(many))
        n_shown += signal(many, y, 0.25 * y + rng.normal(size=len(many))).is_accepted
        n_asked += 1
    assert n_asked > 20
    assert n_shown / n_asked > 0.6
    assert 30 < np.median(told) < 300  # (2.49 / 0.25)^2 = 99 in all, for those on the average


def test_where_nothing_speaks_for_a_relation_no_number_is_made_up() -> None:
    y = np.linspace(-1, 1, 30)
    assert signal(TASKS, y, -y).n_more is None
    assert signal(TASKS, y, np.zeros(30)).n_more is None
    assert signal(TASKS, y, np.full(30, np.nan)).n_more is None


def fill(client: MlflowClient, name: str, n: int, *, noise: float) -> None:
    """An experiment in which the learning rate decides, as far as noise lets it."""
    rng = np.random.default_rng(n)
    experiment = client.create_experiment(name)
    for lr in rng.uniform(0, 1, n):
        loss = (lr - 0.3) ** 2 / 0.05 + noise * rng.normal()
        add_run(client, experiment, params={"lr": lr, "wd": rng.uniform()}, metrics={"loss": loss})


def run(uri: str, *args: str) -> Result:
    return CliRunner().invoke(main, [*args, "--tracking-uri", uri])


def test_noise_is_refused_with_its_own_exit_code_and_its_champion_only_explores(
    client: MlflowClient, store: MlflowStore
) -> None:
    fill(client, "noise", 30, noise=1000.0)
    harvest(store, ["noise"])
    refused = run(store.uri, "train", "--metric", "loss")
    assert refused.exit_code == 3
    assert "can't tell good from bad: on 30 held-out trials" in refused.stderr
    found = json.loads(run(store.uri, "train", "--metric", "loss", "--json").stdout)
    assert found["has_signal"] is False
    assert found["p_value"] > 0.05
    suggested = run(store.uri, "suggest", "-e", "noise", "-n", "4", "--seed", "1", "--json")
    assert suggested.exit_code == 0
    places = np.array(
        [
            [s["params"]["lr"], s["params"]["wd"]]
            for s in json.loads(suggested.stdout)["suggestions"]
        ]
    )
    assert pdist(places).min() > 0.1
    tried = store.read(["noise"]).frame[["params.lr", "params.wd"]].to_numpy(float)
    assert cdist(places, tried).min() > 0.1


def test_a_model_without_signal_does_not_take_over_from_one_that_has_it(
    client: MlflowClient, store: MlflowStore
) -> None:
    fill(client, "clear", 30, noise=0.01)
    harvest(store, ["clear"])
    assert train(store, metric="loss").champion == "1"
    fill(client, "noise", 60, noise=1000.0)
    harvest(store, ["noise"])
    told = run(store.uri, "train", "--metric", "loss")
    assert told.exit_code == 3
    assert "version 2, not promoted: it can't tell good from bad" in told.stdout
    assert "Version 1 stays the champion" in told.stderr
    assert registry.champion(store, metric="loss").version == "1"


def test_too_few_runs_are_refused_with_the_same_exit_code(
    client: MlflowClient, store: MlflowStore
) -> None:
    fill(client, "few", 5, noise=0.0)
    harvest(store, ["few"])
    refused = run(store.uri, "train", "--metric", "loss")
    assert refused.exit_code == 3
    assert "there are 5. Train 3 more" in refused.stderr


def test_too_few_runs_are_explored_without_a_model(
    client: MlflowClient, store: MlflowStore
) -> None:
    fill(client, "few", 5, noise=0.0)
    harvest(store, ["few"])
    asked = ["suggest", "-e", "few", "--metric", "loss", "--explore"]
    found = run(store.uri, *asked, "-n", "6", "--json", "--seed", "1")
    assert found.exit_code == 0, found.stderr
    suggested = json.loads(found.stdout)["suggestions"]
    tried = store.read(["few"]).frame
    lr = [s["params"]["lr"] for s in suggested]
    assert np.ptp(lr) > 0.5 * np.ptp(tried["params.lr"])
    loss = tried["metrics.loss"]
    assert [s["predicted"] for s in suggested] == pytest.approx([loss.median()] * 6)
    for s in suggested:
        waiting = client.get_run(s["run_id"])
        assert waiting.info.status == "SCHEDULED"
        assert "Exploring" in waiting.data.tags["mlflow.note.content"]
    said = run(store.uri, *asked, "--where", "lr=..0.4", "--dry-run")
    assert "cover the search space evenly" in said.stdout
    assert "mlflow-meta train" not in said.stderr
    for wrong in (["--explore", "--task", "few"], ["--direction", "minimize"]):
        assert run(store.uri, "suggest", "-e", "few", *wrong).exit_code == 2


def test_an_experiment_without_runs_is_explored_in_what_others_have_varied(
    client: MlflowClient, store: MlflowStore
) -> None:
    fill(client, "few", 5, noise=0.0)
    client.create_experiment("new")
    harvest(store)
    found = explore(store, "new", n=3, metric="loss", rng=np.random.default_rng(0))
    assert [item.rank for item in found.items] == [1, 2, 3]
    assert set(found.items[0].config) == {"lr", "wd"}
    assert np.isnan(found.best_so_far)
    waiting = queue.waiting(Ledger.of(store, store.experiment_id("new")))
    assert [run.run_id for run in waiting] == found.run_ids


@pytest.mark.slow
def test_what_was_compared_is_nested_under_the_training_with_its_scores(
    client: MlflowClient, store: MlflowStore, tmp_path: Path
) -> None:
    fill(client, "clear", 30, noise=0.01)
    harvest(store, ["clear"])
    done = train(store, metric="loss")
    parent = client.get_run(done.run_id)
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{done.run_id}'"
    )
    table = done.table.set_index("model")
    assert {child.info.run_name for child in children} == set(table.index) >= set(BASELINES)
    for child in children:
        assert child.data.metrics["rmse"] == table.loc[child.info.run_name, "rmse"]
        assert child.info.status == "FINISHED"
    assert table["rmse"].iloc[0] < table.loc["nearest run", "rmse"] < table.loc["mean", "rmse"]
    assert table["spearman_later"].iloc[0] > 0.8
    picture = client.download_artifacts(done.run_id, "candidates.png", str(tmp_path))
    assert Path(picture).stat().st_size > 10_000
