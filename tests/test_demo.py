"""The demo, as a newcomer runs it, and what they do with its store afterwards."""

import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

ROOT = Path(__file__).parent.parent
LIMIT_S = 120.0  # on 2 cores; it takes about 70, and 80 of processor time


@dataclass(frozen=True)
class DemoRun:
    """One run of the demo's command, and what came of it."""

    stdout: str
    folder: Path
    seconds: float

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"


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
        assert run.data.metrics["predicted_val_loss_std"] > 0
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


@pytest.mark.slow
def test_the_tour_runs_top_to_bottom_on_its_store(
    demo: DemoRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(demo.folder / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    notebook = json.loads((ROOT / "notebooks" / "tour.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "a notebook is stored without its output"
            code = "".join(cell["source"])
            exec(compile(code, f"tour.ipynb, cell {cell['id']}", "exec"), names)
    assert names["suggestions"].items[0].rank == 1
    assert names["proven"].is_exact
    assert names["found"].picture.startswith(b"\x89PNG")
