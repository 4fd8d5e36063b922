"""What the models of runs without data sets say of their data: from MLflow 3's files `MLmodel`.

MLflow 3 has signatures in models' artifacts only, one request each. So each model is asked for
once, and what it said is kept with the harvest; some at a time, of the newest runs first; and what
can't be reached is left for the next harvest.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.rest_utils import http_request

from mlflow_meta.store.inputs import HISTORY, history_of
from mlflow_meta.store.runs import Runs

MAX_MODELS = 500  # that one harvest asks for
MAX_BYTES = 256 * 1024  # of a file; one of a hundred columns has 10 kB
MAX_FAILURES = 20  # after which the artifacts can't be reached at all
SIDE_BY_SIDE = 4
TIMEOUT_S = 10.0
MODEL_FILE = "MLmodel"

log = logging.getLogger(__name__)

Fetch = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signatures:
    """What models say of themselves.

    Attributes:
        of_model: Model id -> as the tag `HISTORY` has it; empty where it says nothing.
        remarks: What was left for the next harvest, as sentences.
    """

    of_model: Mapping[str, str]
    remarks: tuple[str, ...] = ()

    def told(self, runs: Runs) -> Runs:
        """The runs with the tag `HISTORY` that MLflow 2 would have written."""
        silent = _silent(runs)
        owners = silent["run"].to_numpy()
        texts = [self.of_model.get(model, "") for model in silent["key"].to_pylist()]
        known = np.array([bool(text) for text in texts], dtype=bool)
        return runs.with_tag(HISTORY, owners[known], [text for text in texts if text])

    def to_bytes(self) -> bytes:
        """As JSON, each text once."""
        texts = sorted(set(self.of_model.values()))
        place = {text: i for i, text in enumerate(texts)}
        of = {model: place[text] for model, text in sorted(self.of_model.items())}
        return json.dumps({"texts": texts, "of": of}).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Signatures:
        """Inverse of `to_bytes`, but for the remarks.

        Raises:
            ValueError: If it is not what `to_bytes` writes.
        """
        try:
            data = json.loads(content)
            return cls(of_model={model: data["texts"][i] for model, i in data["of"].items()})
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"The models' signatures can't be read: {error!r}") from error


def has_silent(runs: Runs) -> bool:
    """Whether there is a run whose data only its model can tell."""
    return bool(_silent(runs).num_rows)


def ask_models(
    fetch: Fetch, runs: Runs, before: Signatures, check: Callable[[int], None] = lambda _: None
) -> Signatures:
    """What the models say of the runs whose data only they can tell.

    Args:
        fetch: See `over`.
        runs: In order.
        before: What is known already, and not asked for again.
        check: Called with how many runs have been read; what it raises ends the reading.
    """
    silent = _silent(runs)
    newest_first = silent.take(pa.array(np.argsort(-silent["run"].to_numpy(), kind="stable")))
    models = list(dict.fromkeys(newest_first["key"].cast(pa.string()).to_pylist()))
    found = {model: before.of_model[model] for model in models if model in before.of_model}
    wanted = [model for model in models if model not in found]
    asked = wanted[:MAX_MODELS]
    failures: list[str] = []

    def attempt(model: str) -> str | None:
        try:
            return history_of(fetch(model))
        # Each artifact store raises its own library's errors, and no model is worth a harvest.
        except Exception as error:
            failures.append(" ".join(str(error).split())[:200])
            return None

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for start in range(0, len(asked), SIDE_BY_SIDE):
            check(len(runs))
            part = asked[start : start + SIDE_BY_SIDE]
            answers = zip(part, pool.map(attempt, part), strict=True)
            found |= {model: text for model, text in answers if text is not None}
            if len(failures) >= MAX_FAILURES:
                break
    return Signatures(
        of_model=found,
        remarks=_remarks(
            len(wanted), len(wanted) - sum(model in found for model in wanted), failures
        ),
    )


def over(client: MlflowClient) -> Fetch:
    """How to get a model's file: of a server by HTTP, beside a database from where it says."""
    credentials = getattr(client._tracking_client.store, "get_host_creds", None)

    def by_http(model: str) -> str:
        with http_request(
            credentials(),  # type: ignore[misc]
            f"/ajax-api/2.0/mlflow/logged-models/{quote(model, safe='')}/artifacts/files",
            "GET",
            max_retries=0,
            raise_on_status=False,
            timeout=TIMEOUT_S,
            params={"artifact_file_path": MODEL_FILE},
            stream=True,
        ) as answer:
            content: bytes = answer.raw.read(MAX_BYTES + 1, decode_content=True)
        if answer.status_code != 200:
            raise OSError(f"{answer.status_code} {content[:200]!r}")
        return _text(content)

    def by_store(model: str) -> str:
        location = client.get_logged_model(model).artifact_location
        with tempfile.TemporaryDirectory() as scratch:
            path = get_artifact_repository(location).download_artifacts(MODEL_FILE, scratch)
            with Path(path).open("rb") as file:
                return _text(file.read(MAX_BYTES + 1))

    return by_http if credentials else by_store


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace") if len(content) <= MAX_BYTES else ""


def _silent(runs: Runs) -> pa.Table:
    """`(m,)` rows of `OUTPUTS`: of finished runs without a data set and without `HISTORY`."""
    told = np.zeros(len(runs), dtype=bool)
    told[runs.inputs["run"].to_numpy()] = True
    of_history = pc.equal(runs.tags["key"].cast(pa.string()), HISTORY)
    told[runs.tags["run"].filter(of_history).to_numpy()] = True
    told |= runs.infos["status"].to_numpy() != "FINISHED"
    return runs.outputs.filter(pa.array(~told[runs.outputs["run"].to_numpy()]))


def _remarks(n_wanted: int, n_missing: int, failures: Sequence[str]) -> tuple[str, ...]:
    if not n_missing:
        return ()
    log.warning(
        "Of %d models' signatures %d were not read: %s",
        n_wanted, n_missing, failures[0] if failures else "too many for one harvest",
        extra={"action": "signatures_left"},
    )  # fmt: skip
    why = f", {len(failures)} since they can't be reached" if failures else ""
    return (
        f"dataset.*, code.*: the signatures of {n_missing} models, of {n_wanted} that are new, "
        f"are left for the next harvest{why}.",
    )
