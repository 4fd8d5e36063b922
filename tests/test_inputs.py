"""Tests for store/inputs.py: data sets that MLflow really made, and what it stored of others."""

import gzip
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import mlflow.data
import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, need
from hypothesis import given
from hypothesis import strategies as st
from mlflow.data.dataset import Dataset
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.models import Model, infer_signature
from mlflow.types import ColSpec, Schema

from mlflow_meta.store.inputs import HISTORY, DatasetFacts, code_of, dataset_of, signature_of

SOURCE = "https://example.org/x.csv"


def stored(dataset: Dataset) -> DatasetFacts:
    """What is told of a data set, from the texts that MLflow stores of it."""
    entity = dataset._to_mlflow_entity()
    return dataset_of(entity.name, entity.digest, entity.schema, entity.profile)


def test_a_pandas_frame_has_rows_columns_and_names() -> None:
    frame = pd.DataFrame({"age": [1.0, 2.0, 3.0], "sex": ["f", "m", "f"]})
    dataset = mlflow.data.from_pandas(frame, source=SOURCE, name="people", targets="sex")
    assert stored(dataset) == DatasetFacts(
        name="people",
        digest=dataset.digest,
        rows=3,
        columns=2,
        features=("age", "sex"),
        source="dataframe",
    )


def test_what_is_inside_of_a_column_is_no_column() -> None:
    frame = pd.DataFrame({"who": [{"name": "a", "of": [{"x": 1.0}]}] * 2, "tags": [["a", "b"]] * 2})
    facts = stored(mlflow.data.from_pandas(frame, source=SOURCE))
    assert (facts.columns, facts.features) == (2, ("who", "tags"))


@pytest.mark.parametrize(
    ("names", "features"),
    [
        ([0, 1], ("0", "1")),
        (pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")]), ("a.x", "a.y")),
        (["same", "same"], ("same",)),
    ],
)
@pytest.mark.filterwarnings("ignore")  # MLflow's about names
def test_pandas_names_columns_by_more_than_texts(names: object, features: tuple[str, ...]) -> None:
    specs = [{"type": "double", "name": name, "required": True} for name in list(names)]
    assert dataset_of("d", "d", json.dumps({"mlflow_colspec": specs}), None).features == features
    if len(features) == 2:
        frame = pd.DataFrame(np.zeros((4, 2)), columns=names)
        facts = stored(mlflow.data.from_pandas(frame, source=SOURCE))
        assert (facts.rows, facts.columns, facts.features) == (4, 2, features)


def test_a_frame_without_columns_has_no_features() -> None:
    facts = stored(mlflow.data.from_pandas(pd.DataFrame(), source=SOURCE))
    assert (facts.rows, facts.columns, facts.features) == (0, None, ())


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [((10, 3), 10, 3), ((10,), 10, 1), ((10, 28, 28, 3), 10, None), ((), None, None)],
)
def test_a_numpy_array_has_rows_and_only_a_table_has_columns(
    shape: tuple[int, ...], rows: int | None, columns: int | None
) -> None:
    array = np.zeros(shape)
    targets = np.zeros(shape[:1]) if shape else None
    dataset = mlflow.data.from_numpy(array, targets=targets, source=SOURCE, digest="d")
    expected = DatasetFacts(name="dataset", digest="d", rows=rows, columns=columns, source="numpy")
    assert stored(dataset) == expected


def test_numpys_dicts_have_the_arrays_names_and_all_their_columns() -> None:
    arrays = {"wide": np.zeros((10, 3)), "flat": np.zeros(10)}
    facts = stored(mlflow.data.from_numpy(arrays, source=SOURCE))
    assert (facts.rows, facts.columns, facts.features) == (10, 4, ("wide", "flat"))
    uneven = {"a": np.zeros((10, 3)), "b": np.zeros((9, 8, 8))}
    facts = stored(mlflow.data.from_numpy(uneven, source=SOURCE))
    assert (facts.rows, facts.columns) == (None, None)


def test_a_profile_that_was_dropped_leaves_the_columns_of_the_schema() -> None:
    entity = mlflow.data.from_numpy(np.zeros((10, 3)), source=SOURCE)._to_mlflow_entity()
    assert dataset_of("d", "d", entity.schema, None).columns == 3
    assert dataset_of("d", "d", entity.schema, entity.profile[:20]).rows is None


def test_a_schema_that_was_dropped_leaves_the_columns_of_the_profile() -> None:
    profile = '{"num_rows": 3, "num_elements": 12}'
    assert dataset_of("d", "d", None, profile).columns == 4
    assert dataset_of("d", "d", "null", profile).columns == 4
    assert dataset_of("d", "d", None, '{"num_rows": 3, "num_elements": 13}').columns is None


def test_a_data_set_of_metadata_alone_has_what_its_schema_says() -> None:
    source = HTTPDatasetSource(url=SOURCE)
    bare = MetaDataset(source, name="web")
    assert stored(bare) == DatasetFacts(name="web", digest=bare.digest)
    schema = Schema([ColSpec("string", "text"), ColSpec("integer", "label")])
    facts = stored(MetaDataset(source, schema=schema))
    assert (facts.rows, facts.columns, facts.features) == (None, 2, ("text", "label"))


def tensors(*shapes: list[int]) -> str:
    """The schema of a TensorFlow data set."""
    specs = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": s}} for s in shapes]
    return json.dumps({"mlflow_tensorspec": {"features": json.dumps(specs), "targets": None}})


COLUMNS = (
    '{"mlflow_colspec": [{"type": "string", "name": "text", "required": true}, {"type": "object", '
    '"properties": {"k": {"type": "long", "required": true}}, "name": "n", "required": true}]}'
)


@pytest.mark.parametrize(
    ("source", "schema", "profile", "rows", "columns"),
    [
        ("spark", COLUMNS, '{"approx_count": 2}', 2, 2),
        ("spark", COLUMNS, '{"approx_count": "unknown"}', None, 2),
        (
            "huggingface",
            COLUMNS,
            '{"num_rows": 3, "dataset_size": null, "size_in_bytes": null}',
            3,
            2,
        ),
        ("dataframe", COLUMNS, '{"num_rows": 2, "num_elements": 4}', 2, 2),  # of polars
        # TensorFlow: rows of 4 numbers, one by one; ...
        ("tensorflow", tensors([-1]), '{"features_cardinality": 6}', 6, None),
        # ... in 3 batches, and in one tensor of 6 rows, which nothing tells apart; ...
        ("tensorflow", tensors([-1, 4]), '{"features_cardinality": 3}', None, 4),
        ("tensorflow", tensors([-1, 4]), '{"features_cardinality": 24}', None, 4),
        # ... without an end, filtered, and of dicts.
        ("tensorflow", tensors([-1]), '{"features_cardinality": -1}', None, None),
        ("tensorflow", tensors([-1]), '{"features_cardinality": -2}', None, None),
        ("tensorflow", None, '{"features_cardinality": 6}', None, None),
    ],
)
def test_other_sources_tell_what_they_know(
    source: str, schema: str | None, profile: str, rows: int | None, columns: int | None
) -> None:
    # These texts were made by MLflow 3.17.2 with pyspark, datasets, polars and tensorflow.
    facts = dataset_of("d", "d", schema, profile)
    assert (facts.source, facts.rows, facts.columns) == (source, rows, columns)
    assert facts.features == (("text", "n") if schema == COLUMNS else ())


@pytest.mark.parametrize(
    "rows", ["true", "-1", "NaN", "Infinity", "1.5", '"3"', "null", "[3]", "1e300", "9" * 5000]
)
def test_a_number_of_rows_that_is_none_is_unknown(rows: str) -> None:
    for key in ("num_rows", "approx_count", "features_cardinality"):
        assert dataset_of("d", "d", tensors([-1]), f'{{"{key}": {rows}}}').rows is None
    assert dataset_of("d", "d", None, f'{{"features_shape": [{rows}, 2]}}').rows is None
    assert dataset_of("d", "d", None, '{"num_rows": 3.0}').rows == 3


def test_half_a_character_in_a_name_can_be_written_to_a_file() -> None:
    schema = '{"mlflow_colspec": [{"type": "double", "name": "\\ud800a"}]}'
    (name,) = dataset_of("d", "d", schema, None).features
    assert name.encode() == b"?a"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                [
                    "mlflow_colspec",
                    "mlflow_tensorspec",
                    "features",
                    "name",
                    "type",
                    "tensor",
                    "shape",
                    "tensor-spec",
                    "features_shape",
                    "num_rows",
                    "num_elements",
                    "approx_count",
                    "signature",
                    "inputs",
                    "flavors",
                    "sklearn",
                    "sklearn_version",
                    "mlflow_version",
                    "0",
                ]
            ),
            inner,
        )
    ),
    max_leaves=12,
)
HOSTILE = st.text() | JSON.map(json.dumps) | JSON.map(lambda value: json.dumps([value]))


@given(HOSTILE, HOSTILE)
def test_no_text_of_a_data_set_makes_it_raise(schema: str, profile: str) -> None:
    facts = dataset_of("d", "d", schema, profile)
    assert facts.rows is None or (type(facts.rows) is int and facts.rows >= 0)
    assert facts.columns is None or (type(facts.columns) is int and facts.columns >= 0)
    assert all(type(name) is str and name.encode() is not None for name in facts.features)


@given(HOSTILE)
def test_no_text_of_a_tag_makes_it_raise(text: str) -> None:
    facts = signature_of(text)
    assert facts is None or facts != DatasetFacts()
    keys = ["mlflow.source.git.commit", "mlflow.source.git.repoURL", "mlflow.project.entryPoint"]
    code = code_of(dict.fromkeys([HISTORY, *keys], text))
    assert all(value and "@" not in code.get("repository", "") for value in code.values())


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"features":' * 100_000])
def test_json_that_is_too_deep_is_unknown(deep: str) -> None:
    assert dataset_of("d", None, deep, deep) == DatasetFacts(name="d")
    within = json.dumps({"mlflow_tensorspec": {"features": deep}})
    assert dataset_of("d", None, within, None) == DatasetFacts(name="d")
    assert signature_of(deep) is None
    assert code_of({HISTORY: deep}) == {}


def test_every_text_that_was_cut_off_is_read_without_an_error() -> None:
    frame = pd.DataFrame({"age": [1.0], "sex": ["f"]})
    entity = mlflow.data.from_pandas(frame, source=SOURCE)._to_mlflow_entity()
    for n in range(len(entity.schema)):
        cut = dataset_of("d", "d", entity.schema[:n], entity.profile[:n])
        assert cut.features == ()


def history(*models: Mapping[str, object]) -> str:
    return json.dumps(list(models))


def model(signature: object = None, **flavors: Mapping[str, object]) -> Mapping[str, object]:
    """A model as MLflow 2 wrote it into the tag."""
    inputs = None if signature is None else {"inputs": json.dumps(signature), "outputs": None}
    return {"run_id": "r", "flavors": flavors, "signature": inputs, "mlflow_version": "2.13.0"}


def test_a_signature_that_mlflow_inferred_has_features() -> None:
    frame = pd.DataFrame({"age": [1.0, 2.0], "sex": ["f", "m"]})
    logged = Model(signature=infer_signature(frame)).to_dict()
    expected = DatasetFacts(columns=2, features=("age", "sex"))
    assert signature_of(history(logged)) == expected


def test_the_signature_of_an_array_has_columns_without_names() -> None:
    logged = Model(signature=infer_signature(np.zeros((5, 7)))).to_dict()
    assert signature_of(history(logged)) == DatasetFacts(columns=7)


def test_the_newest_model_that_has_a_signature_counts() -> None:
    old, new = ([{"name": name, "type": "double"}] for name in ("old", "new"))
    told = signature_of(history(model(old), model(new), model()))
    assert told == DatasetFacts(columns=1, features=("new",))


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", "[1]", history(model()), history(model([]))]
)
def test_a_history_without_signature_tells_nothing(text: str) -> None:
    assert signature_of(text) is None


def test_the_code_of_a_run_is_its_commit_and_its_libraries() -> None:
    flavors = {
        "python_function": {"python_version": "3.9.12", "model_path": "model.pkl"},
        "sklearn": {"sklearn_version": "1.0.2", "code": None},
        "xgboost": {"xgb_version": "2.0.3"},
        "lightgbm": {"lgb_version": "4.6.0"},
        "pytorch": {"pytorch_version": "2.1.0+cu118", "archive_version": "1"},
    }
    tags = {
        "mlflow.source.git.commit": "89A0B1C2d3",
        "mlflow.source.git.branch": "feature/x-1",
        "mlflow.source.git.repoURL": "https://github.com/org/repo.git",
        "mlflow.project.entryPoint": "main",
        HISTORY: history(model(sklearn={"sklearn_version": "0.1"}), model(**flavors)),
    }
    assert code_of(tags) == {
        "commit": "89a0b1c2d3",
        "branch": "feature/x-1",
        "repository": "https://github.com/org/repo.git",
        "entry_point": "main",
        "python": "3.9.12",
        "sklearn": "1.0.2",
        "xgboost": "2.0.3",
        "lightgbm": "4.6.0",
        "pytorch": "2.1.0+cu118",
        "mlflow": "2.13.0",
    }


def test_databricks_has_tags_of_its_own_for_git() -> None:
    tags = {
        "mlflow.databricks.gitRepoCommit": "a" * 40,
        "mlflow.databricks.gitRepoReference": "main",
        "mlflow.databricks.gitRepoReferenceType": "branch",
        "mlflow.databricks.gitRepoUrl": "https://github.com/org/repo",
    }
    told = {"commit": "a" * 40, "branch": "main", "repository": "https://github.com/org/repo"}
    assert code_of(tags) == told
    assert "branch" not in code_of(tags | {"mlflow.databricks.gitRepoReferenceType": "tag"})


@pytest.mark.parametrize(
    ("address", "repository"),
    [
        ("https://user:hunter2@github.com/org/repo", "https://github.com/org/repo"),
        ("https://hunter2@github.com/org/repo", "https://github.com/org/repo"),
        ("https://u:hunter2@x@github.com/org/repo", "https://github.com/org/repo"),
        ("https://github.com/org/repo?token=hunter2#x", "https://github.com/org/repo"),
        ("ssh://git:hunter2@host:22/org/repo", "ssh://host:22/org/repo"),
        ("git@github.com:org/repo.git", "github.com:org/repo.git"),
        ("https://u:hun/ter2@github.com/org/repo", None),  # an @ that can't be told from a path's
        ("https://u:hun#ter2@github.com/org/repo", "https://github.com/org/repo"),
        ("https://u:hun ter2@github.com/org/repo", None),
        ("", None),
        ("https://" + "x" * 1000, None),
    ],
)
def test_a_repository_has_no_secrets(address: str, repository: str | None) -> None:
    told = code_of({"mlflow.source.git.repoURL": address})
    assert told == ({} if repository is None else {"repository": repository})
    assert "hun" not in json.dumps(told)


@pytest.mark.parametrize("commit", ["", "abc", "g" * 40, "a" * 65, "a" * 40 + "\n", " " + "a" * 40])
def test_a_commit_that_is_none_is_left_out(commit: str) -> None:
    assert code_of({"mlflow.source.git.commit": commit}) == {}


@pytest.mark.parametrize(
    "version", ["", "x1", "1" * 40, "1.0\n", "1 0", 1.0, None, ["1"], {"1": 1}]
)
def test_a_version_that_is_none_is_left_out(version: object) -> None:
    logged = model(sklearn={"sklearn_version": version}, custom={"commit_version": "1.0"})
    assert code_of({HISTORY: history(logged)}) == {"mlflow": "2.13.0"}


def test_the_history_that_todays_mlflow_writes_tells_versions() -> None:
    logged = Model(run_id="r", artifact_path="model", mlflow_version=mlflow.__version__)
    logged.add_flavor("sklearn", sklearn_version="1.9.1")
    assert code_of({HISTORY: history(logged.get_tags_dict())}) == {"sklearn": "1.9.1"}


def test_data_sets_and_models_of_strangers_are_understood(tmp_path: Path) -> None:
    need(SHARED.is_dir(), "the strangers' tracking stores (shared/stores) are not here")
    for name, columns, rows in (("taxi-a", 13221, None), ("taxi-i", 5702, 65946)):
        archive = SHARED / "stores" / f"{name}.db.gz"
        (tmp_path / name).write_bytes(gzip.decompress(archive.read_bytes()))
        database = sqlite3.connect(tmp_path / name)
        histories = [
            h for (h,) in database.execute("select value from tags where key = ?", (HISTORY,))
        ]
        assert histories
        for text in histories:
            code = code_of({HISTORY: text})
            assert {"python"} < code.keys()
            assert code["python"].startswith("3.")
        if rows is None:
            assert columns in {facts.columns for text in histories if (facts := signature_of(text))}
        else:
            query = "select name, digest, dataset_schema, dataset_profile from datasets"
            told = [dataset_of(*row) for row in database.execute(query)]
            assert (rows, columns) in {(facts.rows, facts.columns) for facts in told}
            assert {facts.source for facts in told} == {"numpy"}
        database.close()
