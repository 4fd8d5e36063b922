"""Tests for models/failures.py: histories with a region that fails, and with bad luck alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import add_run
from mlflow import MlflowClient

from mlflow_meta.columns import frame_of
from mlflow_meta.models import ZOO
from mlflow_meta.models.failures import Failures, learn_failures
from mlflow_meta.proposal import choose_batch
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.suggest import suggest, suggest_again
from mlflow_meta.services.train import train
from mlflow_meta.space import SearchSpace
from mlflow_meta.store import MlflowStore

SPACE = SearchSpace.from_dict(
    {
        "batch_size": {"type": "categorical", "choices": [32, 64, 256, 512, 1024], "log": True},
        "lr": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
        "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
        "width": {"type": "int", "low": 16, "high": 1024, "log": True},
    }
)


def region(c: dict[str, Any]) -> float:
    """Out of memory, mostly; the rest is the cluster's own share."""
    return 0.9 if c["batch_size"] >= 512 else 0.05


def divergence(c: dict[str, Any]) -> float:
    return 0.95 if c["lr"] > 0.05 and c["optimizer"] == "sgd" else 0.03


def luck(c: dict[str, Any]) -> float:
    return 0.25


def history(truth: Any, n: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Finished and failed runs, as `truth` lets them fail."""
    rng = np.random.default_rng(seed)
    configs = SPACE.sample(n, rng)
    fails = [rng.random() < truth(c) for c in configs]
    frame = frame_of(configs, SPACE.names).assign(task="t")
    return frame[~np.array(fails)], frame[np.array(fails)]


def brier(model: Failures, truth: Any, seed: int) -> tuple[float, float]:
    """Squared error of the chances on new configurations, and that of always saying the base."""
    configs = SPACE.sample(500, np.random.default_rng(seed + 1000))
    true = np.array([truth(c) for c in configs])
    chance = model.chance(frame_of(configs, SPACE.names).assign(task="t"))
    return float(np.mean((chance - true) ** 2)), float(np.mean((model.base - true) ** 2))


@pytest.mark.parametrize("truth", [region, divergence])
@pytest.mark.parametrize("seed", range(3))
def test_where_runs_fail_is_learned_and_far_better_than_the_base_rate(
    truth: Any, seed: int
) -> None:
    model = learn_failures(*history(truth, 150, seed), SPACE)
    assert model.has_signal
    ours, base = brier(model, truth, seed)
    assert ours < 0.4 * base


@pytest.mark.parametrize("seed", range(8))
def test_failures_by_bad_luck_teach_nothing(seed: int) -> None:
    finished, failed = history(luck, 120, seed)
    model = learn_failures(finished, failed, SPACE)
    assert not model.has_signal and model.regions == ()
    np.testing.assert_allclose(model.chance(finished), len(failed) / 120)


def test_the_region_is_named_as_people_write_it_with_its_evidence() -> None:
    finished, failed = history(region, 150, 0)
    model = learn_failures(finished, failed, SPACE)
    rows = pd.concat([finished, failed])
    n = int((rows["params.batch_size"] >= 512).sum())
    n_failed = int((failed["params.batch_size"] >= 512).sum())
    assert model.regions[0].sentence == f"batch_size>=512 (failed {n_failed} of {n})"
    both = learn_failures(*history(divergence, 300, 1), SPACE).regions[0].said
    assert "optimizer=sgd" in both and "lr>=0.0" in both


def test_the_number_that_names_a_region_is_in_it() -> None:
    space = SearchSpace.from_dict({"bytes": {"type": "int", "low": 1, "high": 2**22, "log": True}})
    sizes = [2**k for k in range(10, 22) for _ in range(8)]
    frame = pd.DataFrame({"params.bytes": sizes, "task": "t", "value": 0.0})
    is_failed = frame["params.bytes"] >= 2**20
    found = learn_failures(frame[~is_failed], frame[is_failed], space)
    (avoided,) = found.regions
    assert avoided.said == "bytes>=1048576"
    assert (avoided.n_failed, avoided.n_runs) == (16, 16)


def test_chances_are_what_they_say() -> None:
    model = learn_failures(*history(region, 400, 0), SPACE)
    configs = SPACE.sample(1000, np.random.default_rng(7))
    chance = model.chance(frame_of(configs, SPACE.names).assign(task="t"))
    for low, high in ((0.0, 0.2), (0.7, 1.0)):
        some = (chance >= low) & (chance <= high)
        true = np.mean([region(c) for c, kept in zip(configs, some, strict=True) if kept])
        assert some.sum() > 100 and np.mean(chance[some]) == pytest.approx(true, abs=0.06)


def test_runs_that_die_before_they_log_their_params_are_no_evidence() -> None:
    finished, failed = history(luck, 120, 0)
    failed = failed.assign(**{"params.width": np.nan, "params.lr": np.nan})
    assert not learn_failures(finished, failed, SPACE).has_signal


def test_tags_of_failed_runs_and_hardware_that_only_some_log_tell_nothing() -> None:
    finished, failed = history(luck, 120, 1)
    finished = finished.assign(**{"hardware.gpu": "A100", "tags.error": "no"})
    failed = failed.assign(**{"hardware.gpu": None, "tags.error": "out of memory"})
    assert not learn_failures(finished, failed, SPACE).has_signal


def test_few_failures_or_none_give_the_base_rate() -> None:
    finished, failed = history(region, 60, 0)
    for some in (failed.iloc[:0], failed.iloc[:2]):
        model = learn_failures(finished, some, SPACE)
        share = len(some) / (len(finished) + len(some))
        assert not model.has_signal and model.base == pytest.approx(share)
    nothing = learn_failures(finished.iloc[:0], failed.iloc[:0], SPACE)
    assert nothing.base == 0.0


def trained_where_the_best_fails(
    client: MlflowClient, uri: str, n: int = 60
) -> tuple[MlflowStore, set[str]]:
    """A store whose runs are the better the larger the batch, and fail at 512 and more."""
    store = MlflowStore(uri)
    experiment = client.create_experiment("oom")
    rng = np.random.default_rng(0)
    failed = set()
    for config in SPACE.sample(n, rng):
        c: dict[str, Any] = dict(config)
        fails = c["batch_size"] >= 512
        loss = 3 - np.log2(c["batch_size"]) / 5 + abs(np.log10(c["lr"]) + 2) / 5
        run_id = add_run(
            client, experiment, params=c, metrics={} if fails else {"loss": float(loss)},
            status="FAILED" if fails else "FINISHED",
        )  # fmt: skip
        if fails:
            failed.add(run_id)
    harvest(store)
    train(store, metric="loss", kinds=["linear"])
    return store, failed


def test_suggestions_avoid_where_runs_failed_and_say_so_and_are_found_again(
    client: MlflowClient, sqlite_uri: str
) -> None:
    store, failed = trained_where_the_best_fails(client, sqlite_uri)
    found = suggest(store, "oom", n=4, metric="loss", space=SPACE)
    assert failed
    assert [said.split(" (")[0] for said in found.avoided] == ["batch_size>=512"]
    batches = [item.config["batch_size"] for item in found.items]
    assert max(map(int, map(str, batches))) < 512
    again = suggest_again(store, found.run_ids[0], dry_run=True)
    assert [a.config for a in again.items] == [b.config for b in found.items]
    assert again.avoided == found.avoided
    # Where only the region is left, the risk is told of each.
    risky = suggest(store, "oom", n=2, metric="loss", space=SPACE, where=["batch_size>=512"])
    text = client.get_run(risky.run_ids[0]).data.tags["mlflow.note.content"]
    assert "It may fail" in text


def test_a_batch_goes_where_the_expected_gain_survives_the_risk() -> None:
    rng = np.random.default_rng(0)
    # What was tried beyond 0.02 has failed: it is the model that expects much of it.
    configs = [c for c in SPACE.sample(100, rng) if float(c["lr"]) <= 0.02]
    value = [
        abs(float(np.log10(float(c["lr"]))) + 1) - 0.1 * float(c["batch_size"]) / 256
        for c in configs
    ]
    trials = frame_of(configs, SPACE.names).assign(task="t", value=value)
    failures = learn_failures(*history(lambda c: 0.95 if c["lr"] > 0.02 else 0.02, 200, 0), SPACE)
    model = ZOO["transfer"]()
    model.learn(trials, SPACE)
    how: dict[str, Any] = {"task": "t", "n": 6, "tried": configs}
    bold, _ = choose_batch(model, SPACE, trials, rng=np.random.default_rng(1), **how)
    wary, _ = choose_batch(
        model, SPACE, trials, rng=np.random.default_rng(1), failures=failures, **how
    )
    chances = [
        failures.chance(frame_of(batch, SPACE.names).assign(task="t")) for batch in (bold, wary)
    ]
    assert chances[0].mean() > 0.6 and chances[1].max() <= 0.5
