"""A registered model's files: what is packed is what is read, and nothing else."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
from served_history import history, packed, saved

import mlflow_meta
from mlflow_meta.errors import Damaged
from mlflow_meta.served import seal
from mlflow_meta.served.memory import Memory
from mlflow_meta.served.packed import pack, unpack
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
    }
    first = packed(TRIALS, "linear").model.predict(TRIALS)
    np.testing.assert_array_equal(model.predict(TRIALS).mean, first.mean)


def test_every_file_that_is_changed_missing_or_new_is_named(files: dict[str, bytes]) -> None:
    listed = seal.sealed(files)
    seal.check(files, listed)
    for name in files:
        with pytest.raises(Damaged, match=rf"were changed: {name} has the SHA-256"):
            seal.check({**files, name: files[name] + b" "}, listed)
        with pytest.raises(Damaged, match=f"were changed: {name} is missing"):
            seal.check({key: content for key, content in files.items() if key != name}, listed)
    with pytest.raises(Damaged, match=r"were changed: extra\.bin is not of the model"):
        seal.check({**files, "extra.bin": b""}, listed)


@pytest.mark.parametrize("listed", [None, b"", b"[]", b"\xff"])
def test_without_a_seal_nothing_is_read(files: dict[str, bytes], listed: bytes | None) -> None:
    with pytest.raises(Damaged, match=r"sha256\.json"):
        seal.check(files, listed)


def test_a_seal_is_told_from_another_by_the_tag_of_its_version(files: dict[str, bytes]) -> None:
    listed, other = seal.sealed(files), seal.sealed({**files, "card.json": b"{}"})
    seal.check_tag(listed, hashlib.sha256(listed).hexdigest())
    for found, tag in ((other, seal.digest_of(listed)), (listed, None), (None, "0")):
        with pytest.raises(Damaged, match="somebody has changed one of them"):
            seal.check_tag(found, tag)


def test_what_is_never_read_is_not_asked_for_and_names_are_shown_to_the_letter() -> None:
    trials = TRIALS.rename(columns={"params.dropout": "params.`x`<b>|"})
    it = servable(packed(trials, "linear"), trials.assign(**{"tags.same": "x"}))
    assert {"task", "lr", "`x`<b>|", "hardware.gpu_model"} <= set(it.example)
    assert "tags.same" not in it.example
    assert "` x <b>|`" in it.description and "of 2 tasks" in it.description


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(packed(TRIALS, "linear"), TRIALS, tmp_path_factory.mktemp("model"))


def test_the_seal_lists_every_file_of_the_folder(folder: Path) -> None:
    there = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}
    listed = json.loads((folder / seal.SEAL).read_text())
    assert set(listed) == there - {seal.SEAL}
    assert {"MLmodel", "serving.py", "requirements.txt", "code/mlflow_meta/served/seal.py"} < there
    assert not [path for path in there if path.endswith((".pkl", ".pickle"))]
    for path, digest in listed.items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    "path",
    ["artifacts/meta_model/meta_model.json", "MLmodel", "code/mlflow_meta/trials.py", "conda.yaml"],
)
def test_a_tampered_file_is_refused_by_mlflow_too(
    folder: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.pyfunc.load_model(str(folder))
    file, content = folder / path, (folder / path).read_bytes()
    try:
        file.write_bytes(content + b"\n")
        with pytest.raises(Damaged, match=rf"were changed: {path} has the SHA-256"):
            mlflow.pyfunc.load_model(str(folder))
    finally:
        file.write_bytes(content)


_ELSEWHERE = """
import sys
from pathlib import Path
import mlflow
import pandas as pd
for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow_meta"]:
    del sys.modules[name]
sys.path[:] = [path for path in sys.path if path != sys.argv[2]]
model = mlflow.pyfunc.load_model(sys.argv[1])
assert sys.modules["mlflow_meta"].__file__.startswith(sys.argv[1])
assert len(model.predict(pd.DataFrame({"lr": [0.1, 0.2]}))) == 2
assert len(model.predict(pd.DataFrame({"lr": [0.1]}), params={"k": 3, "task": "sweep-1"})) == 3
package = Path(sys.modules["mlflow_meta"].__file__).parent
shipped = {file.parent.name for file in package.glob("*/__init__.py")}
unused = {name for name in shipped if f"mlflow_meta.{name}" not in sys.modules}
assert not unused, f"shipped, and never imported: {unused}"
"""


def test_the_code_that_is_shipped_is_enough_and_no_more_where_mlflow_meta_is_not_installed(
    folder: Path, tmp_path: Path
) -> None:
    installed = str(Path(mlflow_meta.__file__).parent.parent)
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _ELSEWHERE, str(folder), installed],
        check=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    listed = seal.folder(folder)
    seal.check(listed, listed.pop(seal.SEAL))  # also after it was used
