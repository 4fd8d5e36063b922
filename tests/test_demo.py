"""The demo, as a newcomer runs it, and what they do with its store afterwards."""

import filecmp
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

ROOT = Path(__file__).parent.parent
LIMIT_S = 120.0  # on 2 cores; it takes about 70, and 80 of processor time
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SAID = {  # in the output of each
    "reading": " held-out trials: ",
    "serving": "prediction",
    "tour": "gap 0\n",
    "tuning": "best before: ",
}
NOTEBOOK_LIMIT_S = 120.0  # of each; the longest takes 35 to 75 of processor time
# What says nothing of the notebook: progress bars can't be widgets, and ipykernel on its own end.
NOTEBOOK_WARNINGS = (
    "ignore:IProgress not found",
    "ignore:.*`do_shutdown`:PendingDeprecationWarning",
)

Run = Callable[[Path], subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class DemoRun:
    """One run of the demo's command, and what came of it."""

    stdout: str
    folder: Path
    seconds: float

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells of a notebook that are run."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def said(cell: dict[str, Any]) -> list[str]:
    """What a cell has printed, and its value as a text."""
    texts = [o.get("text") or o.get("data", {}).get("text/plain", []) for o in cell["outputs"]]
    return ["".join(text) for text in texts]


def child_cpu_s() -> float:
    """Processor seconds that the programs started from here have taken so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    folder = tmp_path_factory.mktemp("home") / "mlflow-meta-demo"
    command = [str(Path(sys.executable).with_name("mlflow-meta")), "demo"]
    start, cpu = time.perf_counter(), child_cpu_s()
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False)
    # On a machine that is busy with other things, the processor's time says how long it takes.
    seconds = min(time.perf_counter() - start, child_cpu_s() - cpu)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return DemoRun(stdout=done.stdout, folder=folder, seconds=seconds)


@pytest.mark.slow
def test_it_shows_what_was_suggested_predicted_and_got_and_where_to_look(demo: DemoRun) -> None:
    assert demo.seconds < LIMIT_S, f"{demo.seconds:.0f} s"
    assert demo.stdout.count("FINISHED") == 5
    assert "80% interval" in demo.stdout
    assert "Best val_loss of 16 runs before" in demo.stdout
    assert f"mlflow ui --backend-store-uri {demo.uri}" in demo.stdout


@pytest.mark.slow
def test_its_store_holds_real_trainings_the_champion_and_the_suggestions(demo: DemoRun) -> None:
    client = MlflowClient(demo.uri, demo.uri)
    names = ["breast_cancer", "digits", "wine", "diabetes"]
    found = {name: client.get_experiment_by_name(f"demo-{name}") for name in names}
    runs = {name: client.search_runs([e.experiment_id]) for name, e in found.items()}
    assert {name: len(rows) for name, rows in runs.items()} == dict.fromkeys(names, 16) | {
        "digits": 21
    }
    suggested = [run for run in runs["digits"] if "mlflow_meta.rank" in run.data.tags]
    assert sorted(run.data.tags["mlflow_meta.rank"] for run in suggested) == list("12345")
    for run in suggested:
        assert run.info.status == "FINISHED"
        assert run.data.metrics["val_loss"] > 0
        assert run.data.metrics["std_predicted_val_loss"] > 0
        assert run.inputs.dataset_inputs  # by the training script: it ran under this very run
        assert "mlflow.parentRunId" not in run.data.tags
    every = [run for rows in runs.values() for run in rows]
    assert len({run.data.params["model"] for run in every}) == 4
    assert all(run.data.tags["mlflow_meta.hardware.cpu_cores"] for run in every)
    champion = client.get_model_version_by_alias("mlflow-meta-val_loss", "champion")
    assert client.get_run(champion.run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_a_second_demo_leaves_the_first_as_it_was(demo: DemoRun) -> None:
    from mlflow_meta.cli.look import _fresh

    assert _fresh(demo.folder) == demo.folder.with_name("mlflow-meta-demo-2")


@pytest.fixture
def run(tmp_path: Path, pytestconfig: pytest.Config) -> Run:
    """Run a notebook as CI does, by nbmake, on the store `tmp_path / "mlflow.db"`.

    Its outputs are written into it. In its kernel, warnings are the errors that they are here.
    """
    filters = [*pytestconfig.getini("filterwarnings"), *NOTEBOOK_WARNINGS]
    startup = tmp_path / "ipython" / "profile_default" / "startup" / "warnings.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(
        "import warnings\n"
        "from _pytest.config import parse_warning_filter\n"
        f"for line in {filters!r}:\n"
        "    warnings.filterwarnings(*parse_warning_filter(line, escape=False))\n"
    )
    own = {
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "TMPDIR": str(tmp_path),
    }

    def nbmake(notebook: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml")]
        command += ["-p", "no:cacheprovider", "--nbmake", "--nbmake-timeout=600", "--overwrite"]
        return subprocess.run(
            [*command, str(notebook)],
            cwd=tmp_path,
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            check=False,
        )

    return nbmake


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_is_stored_without_its_output(notebook: Path) -> None:
    for cell in code_cells(notebook):
        assert cell["outputs"] == [], cell["id"]
        assert cell["execution_count"] is None, cell["id"]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_runs_top_to_bottom_on_the_demos_store(
    demo: DemoRun, notebook: Path, tmp_path: Path, run: Run
) -> None:
    shutil.copy(demo.folder / "mlflow.db", tmp_path)
    copied = Path(shutil.copy(notebook, tmp_path))
    start, cpu = time.perf_counter(), child_cpu_s()
    done = run(copied)
    seconds = min(time.perf_counter() - start, child_cpu_s() - cpu)
    assert done.returncode == 0, done.stdout[-5000:]
    assert seconds < NOTEBOOK_LIMIT_S, f"{seconds:.0f} s"
    for cell in code_cells(copied):
        assert cell["execution_count"], cell["id"]
        shown = any("image/png" in output.get("data", {}) for output in cell["outputs"])
        assert shown == ("Image(" in "".join(cell["source"])), cell["id"]
    texts = [text for cell in code_cells(copied) for text in said(cell)]
    assert any(SAID[notebook.stem] in text for text in texts), texts
    if notebook.stem != "tour":  # which says what it writes
        assert filecmp.cmp(tmp_path / "mlflow.db", demo.folder / "mlflow.db", shallow=False)


@pytest.mark.slow
@pytest.mark.parametrize("code", ["1 / 0", "import warnings; warnings.warn('odd')"])
def test_a_notebook_with_a_cell_that_fails_or_warns_is_a_failed_test(
    code: str, tmp_path: Path, run: Run
) -> None:
    cell = {"cell_type": "code", "id": "odd", "metadata": {}, "outputs": [], "source": code}
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": [cell | {"execution_count": None}], "metadata": kernel}
    odd = tmp_path / "odd.ipynb"
    odd.write_text(json.dumps(notebook | {"nbformat": 4, "nbformat_minor": 5}))
    done = run(odd)
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout
