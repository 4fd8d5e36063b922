"""Tests for dataset/leakage.py: what tells the result is not learned from, what is chosen is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import add_run
from mlflow import MlflowClient
from test_dataset import runs

from mlflow_meta.dataset import MetaDataset
from mlflow_meta.dataset.leakage import leaks
from mlflow_meta.errors import BadSpace
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.train import train
from mlflow_meta.space import SearchSpace
from mlflow_meta.store import MlflowStore
from mlflow_meta.trials import Direction, Objective

N = 60
RNG = np.random.default_rng(0)
LR = 10.0 ** RNG.uniform(-4, 0, N)
TASK = np.where(np.arange(N) % 2 == 0, "digits", "wine")
# Two tasks whose losses are a hundredfold apart.
LOSS = ((np.log10(LR) + 2) ** 2 + RNG.normal(0, 0.3, N)) * np.where(TASK == "wine", 100.0, 1.0)
NOTHING = pd.DataFrame(index=range(N))  # was measured beside the value
LOSS_OBJECTIVE = Objective(metric="loss", direction=Direction.MINIMIZE)


def found(column: str, values: Any, **metrics: Any) -> list[tuple[bool, bool]]:
    """Of the leaks that are found in a column: whether they are certain, and left out."""
    trials = pd.DataFrame({"task": TASK, "value": LOSS, "params.lr": LR, column: values})
    measured = pd.DataFrame({f"metrics.{name}": v for name, v in metrics.items()})
    told = leaks(trials, measured.reindex(range(N)))
    assert all(leak.column == column for leak in told)
    return [(leak.is_certain, leak.is_left_out) for leak in told]


@pytest.mark.parametrize("column", ["params.final", "tags.final"])
@pytest.mark.parametrize(
    "values",
    [
        LOSS,
        np.float32(LOSS).astype(float),
        3.0 - 2.0 * LOSS,
        np.round(LOSS, 2),
        np.where(np.arange(N) < 20, LOSS, np.nan),
        LOSS + np.where(TASK == "wine", 7.0, 0.0),
    ],
    ids=["itself", "of 32 bits", "in other units", "rounded", "in some runs", "off by the task"],
)
def test_what_is_the_metric_in_other_words_is_certain(column: str, values: Any) -> None:
    assert found(column, values) == [(True, True)]


def test_the_metric_of_a_maximised_objective_is_found_in_percent() -> None:
    accuracy = 1.0 / (1.0 + LOSS / 100)
    trials = pd.DataFrame({"task": TASK, "value": -accuracy, "params.lr": LR})
    told = leaks(trials.assign(**{"params.acc": np.round(100 * accuracy, 1)}), NOTHING)
    assert [leak.column for leak in told if leak.is_certain] == ["params.acc"]


def test_what_ranks_all_runs_is_suspicious_and_left_out_only_where_nobody_chose_it() -> None:
    assert found("params.final", np.exp(LOSS / 100)) == [(False, False)]
    assert found("tags.final", np.exp(LOSS / 100)) == [(False, True)]


def test_another_view_of_the_result_is_suspicious() -> None:
    val = LOSS * np.exp(RNG.normal(0, 0.1, N))
    assert found("params.best", val, val_loss=val) == [(False, False)]
    assert found("params.best", val) == []


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("params.momentum", RNG.uniform(0, 1, N)),
        ("params.layers", np.arange(N) % 4),
        ("params.constant", np.ones(N)),
        ("params.loss_weight", LOSS * np.exp(RNG.normal(0, 0.2, N))),
        ("params.flag", LOSS > 1),
        ("params.few", np.where(np.arange(N) < 5, LOSS, np.nan)),
        ("params.huge", 10.0 ** RNG.uniform(0, 300, N)),
        ("params.text", np.where(LOSS > 1, "bad", "good")),
    ],
)
def test_what_may_have_been_chosen_is_no_leak(column: str, values: Any) -> None:
    assert found(column, values) == []


def test_a_setting_that_is_logged_as_a_metric_too_is_no_leak() -> None:
    monotone = pd.DataFrame({"task": TASK, "value": LOSS, "params.lr": LOSS + RNG.normal(0, 9, N)})
    assert leaks(monotone, monotone[["params.lr"]].set_axis(["metrics.lr"], axis=1)) == []


def test_a_toy_whose_only_setting_is_its_result_can_still_be_learned() -> None:
    toy = pd.DataFrame({"task": TASK, "value": LOSS, "params.x": LOSS})
    assert leaks(toy, NOTHING) == []
    assert leaks(toy.assign(**{"params.seed": 7}), NOTHING) == []


def test_trials_lack_what_tells_their_value_and_a_remark_says_so() -> None:
    frame = runs(
        N,
        **{
            "metrics.loss": LOSS.tolist(),
            "params.lr": LR.tolist(),
            "params.final_loss": LOSS.tolist(),
            "tags.rank": np.argsort(np.argsort(LOSS)).tolist(),
        },
    )
    dataset = MetaDataset(frame=frame)
    trials, told = dataset.trials_and_leaks(LOSS_OBJECTIVE)
    pd.testing.assert_frame_equal(trials, dataset.trials(LOSS_OBJECTIVE))
    assert set(trials) >= {"params.lr", "value"}
    assert not {"params.final_loss", "tags.rank"} & set(trials)
    remarks = [leak.remark for leak in told]
    assert [remark.split()[0] for remark in remarks] == ["params.final_loss", "tags.rank"]
    assert all("nothing is learned from it" in remark for remark in remarks)


def test_a_model_is_not_trained_on_the_result_even_if_a_space_asks_for_it(
    client: MlflowClient, store: MlflowStore
) -> None:
    experiment = client.create_experiment("leaky")
    for lr, loss in zip(LR[:30], LOSS[:30], strict=True):
        add_run(client, experiment, params={"lr": lr, "final": loss}, metrics={"loss": loss})
    harvest(store, ["leaky"])
    done = train(store, metric="loss")
    assert done.left_out["final"] == "is the metric itself in other words"
    assert any(remark.startswith("params.final ") for remark in done.remarks)
    space = SearchSpace.from_dict({"final": {"type": "float", "low": 0.0, "high": 400.0}})
    with pytest.raises(BadSpace, match="'final', which is the metric itself"):
        train(store, metric="loss", space=space)
