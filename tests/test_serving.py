"""The registered model behind a real `mlflow models serve` and `mlflow models predict`."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from served_history import history, packed, saved
from servers import model_server

from mlflow_meta.columns import frame_of
from mlflow_meta.served.answers import COLUMNS
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.train import train
from mlflow_meta.store import MlflowStore, names, registry
from mlflow_meta.trials import Direction

pytestmark = pytest.mark.slow

TRIALS = history(n_each=20, tasks=2)
ROW = {
    "task": "sweep-1", "model": "mlp", "lr": 0.03, "epochs": 20, "units": 64, "dropout": 0.1,
    "batch_size": 64, "nesterov": True,
}  # fmt: skip


def ask(url: str, rows: list[dict[str, object]], **params: object) -> list[dict[str, Any]]:
    body = {"dataframe_records": rows, **({"params": params} if params else {})}
    request = urllib.request.Request(
        f"{url}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )

    def no_json(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    with urllib.request.urlopen(request, timeout=60) as answer:
        told = json.loads(answer.read(), parse_constant=no_json)
    predictions: list[dict[str, Any]] = told["predictions"]
    return predictions


def refusal(url: str, rows: list[dict[str, object]], **params: object) -> str:
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(url, rows, **params)
    assert caught.value.code == 400
    return caught.value.read().decode()


def test_the_served_champion_answers_rows_of_raw_params_and_suggests(
    store: MlflowStore, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    harvest(store)
    trained = train(store, metric="accuracy")
    config = {"model": "mlp", "lr": 0.03, "units": 64}
    rows = [
        {**config, "task": "sweep-a"},
        {name: str(value) for name, value in config.items()} | {"task": "sweep-a"},
        {"lr": 0.9, "task": "sweep-a", "unheard": "of"},
        {},
        {**config, "task": "new", "lr": "x" * 100_000},
    ]
    with model_server("models:/mlflow-meta-accuracy@champion", store.uri) as url:
        answers = ask(url, rows)
        suggested = ask(url, [{"task": "sweep-b"}], k=3)
        named = ask(url, [{}], k=3, task="sweep-b", seed=0, search_s=5.0)
        told = [
            refusal(url, [{}], k=-1),
            refusal(url, [{}], k=1, search_s=-1.0),
            refusal(url, [{}], k="many"),
        ]
    numbers, texts, partial, nothing, strange = answers
    assert numbers == texts and list(numbers) == list(COLUMNS)
    assert numbers["prediction"] > partial["prediction"]
    for answer in answers:
        assert answer["low_90"] <= answer["low_80"] <= answer["prediction"]
        assert answer["prediction"] <= answer["high_80"] <= answer["high_90"]
    assert "no task is given" in nothing["warning"] and "is no number" in strange["warning"]
    assert strange["best_known"] is None and numbers["duration_s"] > 0
    assert suggested == named and [item["rank"] for item in suggested] == [1, 2, 3]
    assert all(item["task"] == "sweep-b" and item["lr"] for item in suggested)
    for text, law in zip(told, ["k <= 1000", "search_s <= 3600", "k"], strict=True):
        assert law in text
    model = registry.champion(store, metric="accuracy").model
    frame = frame_of([config], list(config)).assign(task="sweep-a")
    assert numbers["prediction"] == pytest.approx(-model.predict(frame).mean.item())
    _check_version(client, trained.model_name, trained.run_id)


def _check_version(client: MlflowClient, name: str, run_id: str) -> None:
    version = client.get_model_version_by_alias(name, "champion")
    run = client.get_run(run_id)
    assert version.run_id == run_id
    assert version.description.startswith("Predicts `accuracy` (higher is better)")
    assert version.tags[names.N_TRIALS] == "48" and version.tags[names.N_TASKS] == "2"
    assert version.tags[names.HAS_SIGNAL] == "true"
    for tag, metric in ((names.RMSE, "rmse"), (names.RANK_CORRELATION, "spearman")):
        assert float(version.tags[tag]) == pytest.approx(run.data.metrics[metric], abs=1e-3)
    assert float(version.tags[names.RMSE]) < float(version.tags[names.RMSE_OF_MEAN])
    assert 0.5 < float(version.tags[names.COVERAGE]) <= 1
    assert run.inputs.dataset_inputs[0].dataset.name == "meta-dataset"
    files = [file.path for file in client.list_artifacts(run_id, "model")]
    assert "model/input_example.json" in files
    assert not [file for file in files if file.endswith(".pkl")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    it = packed(TRIALS, "lightgbm", Direction.MAXIMIZE, "accuracy")
    return saved(it, TRIALS, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> PyFuncModel:
    return mlflow.pyfunc.load_model(str(folder))


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_mlflow_models_predict_answers_a_file(folder: Path, kind: str, tmp_path: Path) -> None:
    rows = pd.DataFrame([ROW, {**ROW, "lr": 30.0}])
    asked, told = tmp_path / f"rows.{kind}", tmp_path / "answers.json"
    if kind == "json":
        asked.write_text(json.dumps({"dataframe_records": rows.to_dict("records")}))
    else:
        rows.to_csv(asked, index=False)
    argv = [sys.executable, "-m", "mlflow", "models", "predict", "-m", str(folder), "-i"]
    argv += [str(asked), "-o", str(told), "-t", kind, "--env-manager", "local"]
    # Nobody listens there: neither a registry nor a proxy may be asked.
    nowhere = "http://127.0.0.1:9"
    env = {**os.environ, "MLFLOW_TRACKING_URI": nowhere, "http_proxy": nowhere,
           "https_proxy": nowhere, "MLFLOW_DISABLE_TELEMETRY": "true"}  # fmt: skip
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    usual, far = json.loads(told.read_text())["predictions"]
    assert usual["prediction"] > far["prediction"] and usual["warning"] == ""
    assert "lr = 30 is outside" in far["warning"] and far["extrapolates"]


def test_the_signature_says_what_is_answered(folder: Path, loaded: PyFuncModel) -> None:
    signature = loaded.metadata.signature
    assert [c.name for c in signature.inputs if c.required] == []
    assert {"task", "lr", "hardware.gpu_model"} <= set(signature.inputs.input_names())
    assert [p.name for p in signature.params] == ["k", "task", "search_s", "seed", "reasons"]
    answer = loaded.predict(mlflow.pyfunc.load_model(str(folder)).input_example)
    kinds = {"double": "f", "boolean": "b", "string": "OTU"}
    assert {c.name: c.type.name for c in signature.outputs} == COLUMNS
    for name, kind in COLUMNS.items():
        assert answer[name].dtype.kind in kinds[kind], name


def test_a_hundred_thousand_rows_take_no_more_memory_than_their_answers(
    loaded: PyFuncModel,
) -> None:
    rng = np.random.default_rng(0)
    few = pd.DataFrame([ROW] * 100).assign(lr=10 ** rng.uniform(-4, 0, 100))
    many = pd.DataFrame([ROW] * 100_000).assign(lr=10 ** rng.uniform(-4, 0, 100_000))
    loaded.predict(few)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    answer = loaded.predict(many)
    assert time.monotonic() - started < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 500 * 1024
    assert len(answer) == 100_000 and answer["prediction"].notna().all()


def test_what_can_not_be_answered_is_an_error_that_names_it(loaded: PyFuncModel) -> None:
    assert len(loaded.predict(pd.DataFrame([ROW]).iloc[:0])) == 0
    with pytest.raises(MlflowException, match=r"`1 <= k <= 1000` must hold, but got k = -3"):
        loaded.predict(pd.DataFrame([ROW]), params={"k": -3})
    for blank in ({}, {"lrr": 0.1}):
        with pytest.raises(MlflowException, match=r"No row has a column that is known: task, mod"):
            loaded.predict(pd.DataFrame([blank]))
    with pytest.raises(MlflowException, match=r"With k, a single row says .* but there are 2"):
        loaded.predict(pd.DataFrame([ROW, ROW]), params={"k": 3})
    fixed = loaded.predict(pd.DataFrame([{"task": "sweep-1", "model": "tree"}]), params={"k": 3})
    assert set(fixed["model"]) == {"tree"} and len(fixed) == 3
    without = loaded.predict(pd.DataFrame([ROW]), params={"reasons": False})
    assert without["reasons"].tolist() == [""]
