"""What a person sees in the stock MLflow UI, in a real browser."""

import importlib.util
import shutil

import pytest
from conftest import need
from mlflow import MlflowClient
from servers import mlflow_server

from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.suggest import suggest
from mlflow_meta.services.train import train
from mlflow_meta.store import MlflowStore


@pytest.mark.browser
@pytest.mark.slow
def test_suggested_runs_are_on_top_in_order_without_a_click(
    store: MlflowStore, client: MlflowClient
) -> None:
    need(importlib.util.find_spec("playwright"), "playwright is not installed")
    need(shutil.which("chromium"), "no Chromium is installed (apt-get install chromium)")
    from screenshots import chromium, runs_table

    harvest(store)
    train(store, metric="val_loss")
    found = suggest(store, "sweep-a", n=3)
    experiment = client.get_experiment_by_name("sweep-a").experiment_id
    with mlflow_server(store.uri) as url, chromium() as page:
        rows = runs_table(page, url, experiment)
        seen = runs_table(page, url, experiment, found.view)
    assert [row["run_id"] for row in rows[:3]] == list(found.run_ids)
    for rank, (row, item) in enumerate(zip(rows, found.items, strict=False), start=1):
        assert row["Run Name"] == f"suggested {rank}: {item.mean:.4g}"
    assert {"predicted_val_loss", "val_loss", "lr"} <= set(seen[0])
    assert float(seen[0]["predicted_val_loss"]) == pytest.approx(found.items[0].mean, rel=1e-5)
