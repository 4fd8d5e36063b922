"""A registered model's files: what is packed is what is read, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from served_history import history, packed, saved

from mlflow_meta.errors import Damaged
from mlflow_meta.served.memory import Memory
from mlflow_meta.served.packed import SEAL, pack, unpack
from mlflow_meta.served.remember import remember
from mlflow_meta.space import infer
from mlflow_meta.store.model_folder import servable

TRIALS = history(n_each=15, tasks=2)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    it = packed(TRIALS, "linear")
    return pack(it, remember(TRIALS, infer(TRIALS).space).save())


def test_what_is_packed_is_read_again_to_the_last_bit(files: dict[str, bytes]) -> None:
    model = unpack(files).model
    again = pack(unpack(files), Memory.load(files).save())
    assert {name: again[name] for name in again if not name.endswith(".npz")} == {
        name: files[name] for name in files if not name.endswith(".npz")
    } | {SEAL: again[SEAL]}
    first = packed(TRIALS, "linear").model.predict(TRIALS)
    np.testing.assert_array_equal(model.predict(TRIALS).mean, first.mean)


def test_every_file_that_is_changed_missing_or_new_is_named(files: dict[str, bytes]) -> None:
    assert set(json.loads(files[SEAL])) == set(files) - {SEAL}
    for name in set(files) - {SEAL}:
        with pytest.raises(Damaged, match=rf"were changed: {name} has the SHA-256"):
            unpack({**files, name: files[name] + b" "})
        with pytest.raises(Damaged, match=f"were changed: {name} is missing"):
            unpack({key: content for key, content in files.items() if key != name})
    with pytest.raises(Damaged, match=r"were changed: extra\.bin is not of the model"):
        unpack({**files, "extra.bin": b""})


@pytest.mark.parametrize("seal", [None, b"", b"[]", b"\xff"])
def test_without_a_seal_nothing_is_read(files: dict[str, bytes], seal: bytes | None) -> None:
    others = {name: content for name, content in files.items() if name != SEAL}
    with pytest.raises(Damaged, match=r"sha256\.json"):
        unpack(others if seal is None else {**others, SEAL: seal})


def test_what_is_never_read_is_not_asked_for_and_names_are_shown_to_the_letter() -> None:
    trials = TRIALS.rename(columns={"params.dropout": "params.`x`<b>|"})
    it = servable(packed(trials, "linear"), trials.assign(**{"tags.same": "x"}))
    assert {"task", "lr", "`x`<b>|", "hardware.gpu_model"} <= set(it.example)
    assert "tags.same" not in it.example
    assert "` x <b>|`" in it.description and "of 2 tasks" in it.description


@pytest.mark.slow
def test_a_tampered_file_is_refused_by_mlflow_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    folder = saved(packed(TRIALS, "linear"), TRIALS, tmp_path)
    assert not [file for file in folder.rglob("*") if file.suffix in {".pkl", ".pickle"}]
    mlflow.pyfunc.load_model(str(folder))
    file = next(folder.glob("artifacts/*/meta_model.json"))
    file.write_text(file.read_text().replace('"cv_rmse": 0', '"cv_rmse": 1', 1))
    with pytest.raises(Damaged, match=r"meta_model\.json has the SHA-256"):
        mlflow.pyfunc.load_model(str(folder))
