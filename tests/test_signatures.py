"""The signatures of MLflow 3's models: from a real server, and from the database beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from conftest import add_run
from mlflow import MlflowClient
from mlflow.models import Model, infer_signature
from mlflow.types import ColSpec, Schema
from servers import mlflow_server
from sklearn.linear_model import LinearRegression

from mlflow_meta.services.harvest import harvest
from mlflow_meta.store import MlflowStore, names, signatures
from mlflow_meta.store.inputs import code_of, history_of, signature_of
from mlflow_meta.store.signatures import Signatures

FRAME = pd.DataFrame({"age": [1.0, 2.0, 3.0], "income": [3.0, 4.0, 6.0]})


@contextmanager
def tracking(uri: str) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def log_model(experiment: str, columns: list[str] | None) -> str:
    """A run with a model, with a signature of these columns; the run's id."""
    mlflow.set_experiment(experiment)
    X = FRAME[columns or ["age"]]
    model = LinearRegression().fit(X, FRAME["income"])
    signature = infer_signature(X, model.predict(X)) if columns else None
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 0.5)
        mlflow.sklearn.log_model(
            model, name="model", signature=signature, pip_requirements=["scikit-learn"]
        )
    return str(run.info.run_id)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's, of logging models
def test_models_of_mlflow_3_tell_the_columns_over_http_and_beside_a_database(
    sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Artifacts of a folder, so that they can be reached without the server too.
    client = MlflowClient(sqlite_uri)
    for name in ("signed", names.PROJECT_EXPERIMENT):
        client.create_experiment(name, artifact_location=(tmp_path / name).as_uri())
    with tracking(sqlite_uri):
        both = log_model("signed", ["age", "income"])
        one = log_model("signed", ["age"])
        bare = log_model("signed", None)
    experiment = client.get_experiment_by_name("signed").experiment_id
    logged = add_run(client, experiment, params={}, metrics={"loss": 1.0}, frame=FRAME)
    asked: list[str] = []
    fetching = signatures.over

    def counted(of: MlflowClient) -> signatures.Fetch:
        fetch = fetching(of)
        return lambda model: (asked.append(model), fetch(model))[1]

    monkeypatch.setattr("mlflow_meta.store.mlflow_store.models_over", counted)
    with mlflow_server(sqlite_uri, tmp_path / "served") as url:
        served = MlflowStore(url)
        first = harvest(served)
        assert len(asked) == 3  # none for the run with a data set
        assert harvest(served).n_trials == harvest(served, full=True).n_trials == 4
        assert len(asked) == 3  # what they said is kept
        by_http = first.dataset.to_parquet()
        assert harvest(served).dataset.to_parquet() == by_http
    database = MlflowStore(sqlite_uri)
    assert harvest(database).dataset.to_parquet() == by_http
    assert len(asked) == 3
    again = harvest(database, ["signed"])  # another selection keeps its own
    assert again.dataset.to_parquet() == by_http
    assert len(asked) == 6
    frame = first.dataset.frame.set_index("run_id")
    assert frame.loc[[both, one, logged], "dataset.columns"].tolist() == [2, 1, 2]
    assert pd.isna(frame.loc[bare, "dataset.columns"])
    assert frame.loc[[both, one], "dataset.feature.income"].tolist() == [True, False]
    assert set(frame.loc[[both, one, bare], "code.mlflow"]) == {mlflow.__version__}
    assert frame.loc[[both, one, bare], "code.sklearn"].notna().all()
    assert first.dataset.remarks == ()


@pytest.mark.filterwarnings("ignore")  # MLflow's, of logging models
def test_models_that_cant_be_reached_are_left_for_the_next_harvest_and_that_is_said(
    sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "artifacts"
    MlflowClient(sqlite_uri).create_experiment("signed", artifact_location=folder.as_uri())
    with tracking(sqlite_uri):
        older, newer = log_model("signed", ["age"]), log_model("signed", ["age"])
    store = MlflowStore(sqlite_uri)
    shutil.move(folder, tmp_path / "away")
    lost = harvest(store)
    assert lost.n_trials == 2
    assert lost.dataset.remarks == (
        "dataset.*, code.*: the signatures of 2 models, of 2 that are new, are left for the next "
        "harvest, 2 since they can't be reached.",
    )
    shutil.move(tmp_path / "away", folder)
    monkeypatch.setattr(signatures, "MAX_MODELS", 1)
    half = harvest(store)
    frame = half.dataset.frame.set_index("run_id")
    assert frame.loc[newer, "dataset.columns"] == 1
    assert pd.isna(frame.loc[older, "dataset.columns"])
    assert half.dataset.remarks == (
        "dataset.*, code.*: the signatures of 1 models, of 2 that are new, are left for the next "
        "harvest.",
    )
    whole = harvest(store)
    assert set(whole.dataset.frame["dataset.columns"]) == {1}
    assert whole.dataset.remarks == ()


def test_an_mlmodel_file_says_what_the_tag_of_mlflow_2_says() -> None:
    signature = infer_signature(FRAME)
    model = Model(signature=signature, flavors={"sklearn": {"sklearn_version": "1.5.10"}})
    history = history_of(model.to_yaml())
    facts = signature_of(history)
    assert facts is not None
    assert (facts.columns, facts.features) == (2, ("age", "income"))
    versions = code_of({"mlflow.log-model.history": history})
    assert versions == {"mlflow": mlflow.__version__, "sklearn": "1.5.10"}
    wide = Model(signature=mlflow.models.ModelSignature(
        Schema([ColSpec("double", f"x{i}") for i in range(300)])
    ))  # fmt: skip
    found = signature_of(history_of(wide.to_yaml()))
    assert found is not None
    assert found.columns == 300


@pytest.mark.parametrize(
    "text",
    [
        "", "a: [", "\x00", "[" * 5000, "a: &a [1]\nb: *a", "!!python/object/apply:os.getcwd []",
        "utc_time_created: 2026-99-99", "flavors: [1]\nsignature: 1", "? [a]\n: b", "- 1",
        "signature: {inputs: {a: 1}}\nmlflow_version: [3]\nflavors: {? [x] : {sklearn_version: 1}}",
    ],
)  # fmt: skip
def test_no_mlmodel_file_is_an_error(text: str) -> None:
    assert signature_of(history_of(text)) is None
    assert code_of({"mlflow.log-model.history": history_of(text)}) == {}


def test_signatures_come_back_from_their_bytes() -> None:
    said = Signatures(of_model={"m-1": "a", "m-2": "b", "m-3": "a"})
    assert Signatures.from_bytes(said.to_bytes()) == said
    for junk in (b"", b"[]", b"{}", b'{"texts": [], "of": {"m": 3}}', json.dumps([1]).encode()):
        with pytest.raises(ValueError):
            Signatures.from_bytes(junk)
