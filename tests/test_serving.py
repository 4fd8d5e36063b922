"""The registered model behind a real `mlflow models serve`."""

import json
import urllib.request

import pytest
from mlflow import MlflowClient
from servers import model_server

from mlflow_meta.columns import frame_of
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.train import train
from mlflow_meta.store import MlflowStore, registry


def ask(url: str, rows: list[dict[str, object]]) -> list[dict[str, float]]:
    request = urllib.request.Request(
        f"{url}/invocations",
        json.dumps({"dataframe_records": rows}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        predictions: list[dict[str, float]] = json.load(answer)["predictions"]
    return predictions


@pytest.mark.slow
def test_the_served_champion_answers_rows_of_raw_params(
    store: MlflowStore, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    harvest(store)
    trained = train(store, metric="accuracy")
    config = {"model": "mlp", "lr": 0.03, "units": 64}
    rows = [
        {**config, "task": "sweep-a"},
        {name: str(value) for name, value in config.items()} | {"task": "sweep-a"},
        {"lr": 0.9, "task": "sweep-a"},
        {},
    ]
    with model_server("models:/mlflow-meta-accuracy@champion", store.uri) as url:
        numbers, texts, partial, nothing = ask(url, rows)
    assert numbers == texts
    assert numbers["prediction"] > partial["prediction"]
    for answer in (numbers, partial, nothing):
        assert answer["low"] <= answer["prediction"] <= answer["high"]
    model = registry.champion(store, metric="accuracy").model
    frame = frame_of([config], list(config)).assign(task="sweep-a")
    assert numbers["prediction"] == pytest.approx(-model.predict(frame).mean.item())
    version = client.get_model_version_by_alias(trained.model_name, "champion")
    assert version.run_id == trained.run_id
    run = client.get_run(trained.run_id)
    assert run.inputs.dataset_inputs[0].dataset.name == "meta-dataset"
    assert run.data.metrics["rmse"] > 0
    files = [file.path for file in client.list_artifacts(trained.run_id, "model")]
    assert "model/input_example.json" in files
    assert not [file for file in files if file.endswith(".pkl")]
