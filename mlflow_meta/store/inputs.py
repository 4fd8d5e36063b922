"""What data and what code a run worked on, from the texts that MLflow stores of them.

Every text may be cut off, hostile or of a future MLflow. What can't be read is unknown: no error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import yaml

HISTORY: Final = "mlflow.log-model.history"

_LARGEST = 2**53  # above it JSON's numbers are no longer exact, and no data set has so many rows

_SOURCES: Final = {
    "features_shape": "numpy",
    "features_cardinality": "tensorflow",
    "approx_count": "spark",
    "dataset_size": "huggingface",
    "num_elements": "dataframe",  # pandas and polars: MLflow writes the two alike
}
"""A key that only one source's profile has; the first that is there tells."""

_LIBRARIES: Final = {
    "lgb_version": "lightgbm",
    "xgb_version": "xgboost",
    "catboost_version": "catboost",
    "h2o_version": "h2o",
    "keras_version": "keras",
    "langchain_version": "langchain",
    "onnx_version": "onnx",
    "openai_version": "openai",
    "paddle_version": "paddle",
    "pmdarima_version": "pmdarima",
    "prophet_version": "prophet",
    "pyspark_version": "pyspark",
    "python_version": "python",
    "pytorch_version": "pytorch",
    "sentence_transformers_version": "sentence_transformers",
    "sklearn_version": "sklearn",
    "spacy_version": "spacy",
    "statsmodels_version": "statsmodels",
    "tensorflow_version": "tensorflow",
    "transformers_version": "transformers",
}
"""The keys by which MLflow's flavors give a library's version."""

_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")
_VERSION = re.compile(r"[0-9][\w.+-]{0,30}", re.ASCII)
_WORD = re.compile(r"[\w./@+#:-]{1,200}")  # a branch, an entry point
_REPOSITORY = re.compile(  # scheme, user and password, address, query and fragment
    r"((?:[a-z+]{2,10}://)?)(?:[^/\s]*@)?([^@\s?#]{3,300})(?:[?#][^@]*)?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """A data set as a run's inputs, or its model's signature, describe it.

    Attributes:
        name: As the team named it; MLflow's own default is "dataset".
        digest: MLflow's fingerprint of the contents.
        rows: How many; of Spark approximately.
        columns: How many, where the data is a table: also the target's, where MLflow has it in the
            schema (all but numpy and tensorflow). None of images and other tensors.
        features: The columns' names as the schema has them, each once; what is inside of an object
            or array is no column. Empty where columns have no names.
        source: "dataframe" (pandas or polars), "numpy", "spark", "huggingface" or "tensorflow".
    """

    name: str | None = None
    digest: str | None = None
    rows: int | None = None
    columns: int | None = None
    features: tuple[str, ...] = ()
    source: str | None = None


def dataset_of(
    name: str | None, digest: str | None, schema: str | None, profile: str | None
) -> DatasetFacts:
    """A data set from the texts of MLflow's table of data sets."""
    shown, spec = _mapping(_parsed(profile)), _mapping(_parsed(schema))
    source = next((name for key, name in _SOURCES.items() if key in shown), None)
    tensors = _mapping(spec.get("mlflow_tensorspec")).get("features")
    specs = _specs(spec.get("mlflow_colspec")) or _specs(_unwrapped(tensors))
    return DatasetFacts(
        name=name,
        digest=digest,
        rows=_rows(shown, specs),
        columns=_columns(shown, specs, source),
        features=_names(specs),
        source=source,
    )


def signature_of(history: str) -> DatasetFacts | None:
    """The features of the newest model that has a signature; `history` is the tag `HISTORY`.

    MLflow 2.13 writes signatures into this tag, 3.17 doesn't; see `history_of`.
    """
    for model in _models(history):
        specs = _specs(_unwrapped(_mapping(model.get("signature")).get("inputs")))
        facts = DatasetFacts(columns=_columns({}, specs, None), features=_names(specs))
        if facts != DatasetFacts():
            return facts
    return None


def history_of(mlmodel: str) -> str:
    """A model's own file as the tag `HISTORY` would have it; empty if it can't be read."""
    try:
        model = _mapping(yaml.load(mlmodel, Loader=_TextLoader))
    except (yaml.YAMLError, ValueError, RecursionError):
        return ""
    inputs = _mapping(model.get("signature")).get("inputs")
    flavors = {
        flavor: {key: version for key, version in _mapping(facts).items() if key in _LIBRARIES}
        for flavor, facts in _mapping(model.get("flavors")).items()
        if isinstance(flavor, str)
    }
    kept = {
        "signature": {"inputs": inputs} if isinstance(inputs, str) else None,
        "flavors": {
            flavor: {key: text for key, text in found.items() if isinstance(text, str)}
            for flavor, found in flavors.items()
        },
        "mlflow_version": model.get("mlflow_version"),
    }
    if not isinstance(kept["mlflow_version"], str):
        kept["mlflow_version"] = None
    return json.dumps([kept], sort_keys=True)


class _TextLoader(yaml.BaseLoader):
    """Reads every scalar as the text that it is, and refuses aliases: they nest without end."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def code_of(tags: Mapping[str, str]) -> dict[str, str]:
    """What code a run ran, from its tags.

    Returns:
        commit: Lower case, as long as it was given.
        branch, entry_point: Of git, and of an MLflow project.
        repository: Its address, without user, password, query and fragment.
        python, sklearn, xgboost, ... mlflow: Versions, from the newest model that was logged.
    """
    found = dict(_versions(tags.get(HISTORY, "")))
    on_branch = tags.get("mlflow.databricks.gitRepoReferenceType") == "branch"
    stated = {
        "commit": _matching(
            _COMMIT,
            tags.get("mlflow.source.git.commit") or tags.get("mlflow.databricks.gitRepoCommit"),
        ).lower(),
        "branch": _matching(
            _WORD,
            tags.get("mlflow.source.git.branch")
            or (tags.get("mlflow.databricks.gitRepoReference") if on_branch else None),
        ),
        "repository": _without_secrets(
            tags.get("mlflow.source.git.repoURL") or tags.get("mlflow.databricks.gitRepoUrl") or ""
        ),
        "entry_point": _matching(_WORD, tags.get("mlflow.project.entryPoint")),
    }
    return found | {key: value for key, value in stated.items() if value}


def _rows(profile: Mapping[str, object], specs: Sequence[Mapping[str, object]]) -> int | None:
    if "features_shape" in profile:
        counts = {_whole(shape[0]) if shape else None for shape in _shapes(profile)}
        return counts.pop() if len(counts) == 1 else None
    if "features_cardinality" in profile:
        # TensorFlow's: a tensor's numbers, or the batches of a data set. Where the features have
        # one dimension, and only there, neither differs from the rows.
        flat = len(specs) == 1 and len(_shape(specs[0])) == 1
        return _whole(profile["features_cardinality"]) if flat else None
    return _whole(profile.get("num_rows", profile.get("approx_count")))


def _columns(
    profile: Mapping[str, object], specs: Sequence[Mapping[str, object]], source: str | None
) -> int | None:
    shapes = _shapes(profile) or [_shape(spec) for spec in specs if spec.get("type") == "tensor"]
    if shapes:
        widths = [_width(shape) for shape in shapes if source != "tensorflow" or len(shape) > 1]
        known = [width for width in widths if width is not None]
        return sum(known) if len(known) == len(shapes) else None
    if specs:
        return len(specs)
    rows, elements = _whole(profile.get("num_rows")), _whole(profile.get("num_elements"))
    return elements // rows if rows and elements and elements % rows == 0 else None


def _shapes(profile: Mapping[str, object]) -> list[Sequence[object]]:
    """The shapes of numpy's features: of one array, or of each in a dict."""
    shapes = profile.get("features_shape")
    arrays = list(shapes.values()) if isinstance(shapes, dict) else [shapes]
    return [array for array in arrays if isinstance(array, list)]


def _shape(spec: Mapping[str, object]) -> Sequence[object]:
    shape = _mapping(spec.get("tensor-spec")).get("shape")
    return shape if isinstance(shape, list) else []


def _width(shape: Sequence[object]) -> int | None:
    """The columns of an array: (n,) is one, (n, p) are p, and an image has none."""
    if len(shape) == 1:
        return 1
    return _whole(shape[1]) if len(shape) == 2 else None


def _names(specs: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for spec in specs for name in _name(spec.get("name"))))


def _name(name: object) -> Iterator[str]:
    """A column's name as text. pandas also has numbers for names, and lists where it nests them."""
    if isinstance(name, list):
        parts = [part for item in name for part in _name(item)]
        if parts:
            yield ".".join(parts)
    elif isinstance(name, str | int | float) and not isinstance(name, bool):
        # JSON can hold half a character (a lone surrogate), which no file and no database takes.
        yield str(name).encode(errors="replace").decode()


def _versions(history: str) -> Iterator[tuple[str, str]]:
    model = next(_models(history), {})
    flavors = _mapping(model.get("flavors")).values()
    for facts in map(_mapping, flavors):
        for key, library in _LIBRARIES.items():
            if version := _matching(_VERSION, facts.get(key)):
                yield library, version
    if version := _matching(_VERSION, model.get("mlflow_version")):
        yield "mlflow", version


def _models(history: str) -> Iterator[Mapping[str, object]]:
    """The models that a run logged, newest first."""
    models = _parsed(history)
    if isinstance(models, list):
        yield from (model for model in reversed(models) if isinstance(model, dict))


def _without_secrets(address: str) -> str:
    # An @ further on may be a path's, or a password's with a slash: we can't tell what is secret.
    match = _REPOSITORY.fullmatch(address)
    return match[1] + match[2] if match else ""


def _matching(form: re.Pattern[str], value: object) -> str:
    return value if isinstance(value, str) and form.fullmatch(value) else ""


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value < _LARGEST or value != int(value):  # NaN isn't in the range either
        return None
    return int(value)


def _specs(value: object) -> list[Mapping[str, object]]:
    return [spec for spec in value if isinstance(spec, dict)] if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _unwrapped(value: object) -> object:
    """JSON within JSON: MLflow writes a schema as a text inside of the text."""
    return _parsed(value) if isinstance(value, str) else value


def _parsed(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
