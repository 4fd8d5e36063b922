"""What README says: its Python runs, and it names what there is."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(code: str) -> str:
    """Run a block as a program of its own; what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    return printed.getvalue()


def test_the_block_on_propose_prints_three_configurations() -> None:
    lines = run(BLOCKS[1]).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("{'lr': ") for line in lines)


def test_the_block_on_top_k_proves_its_best() -> None:
    """It goes on where the block before it ends."""
    last = run(BLOCKS[1] + BLOCKS[2]).splitlines()[-1]
    shown = re.fullmatch(r"\{'lr': .*\} (\S+) (\S+) (\d+)", last)
    assert shown is not None, last
    assert float(shown[2]) == 0.0
    assert int(shown[3]) > 100


def test_the_block_on_optuna_asks_for_a_trial_of_a_study_made_of_runs(
    filled_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", filled_uri)
    shown = re.fullmatch(r"(\S+) \{'lr': (\S+)\}", run(BLOCKS[3]).strip())
    assert shown is not None
    assert 1e-4 <= float(shown[2]) <= 1.0


def test_the_block_on_services_schedules_three_runs(
    filled_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", filled_uri)
    printed = run(BLOCKS[0])
    assert "spearman" in printed
    experiment = client.get_experiment_by_name("sweep-a").experiment_id
    scheduled = client.search_runs([experiment], "attributes.status = 'SCHEDULED'")
    assert sorted(r.data.tags["mlflow_meta.rank"] for r in scheduled) == ["1", "2", "3"]


def test_every_file_it_shows_is_there() -> None:
    paths = re.findall(r"\]\(([^)#:]+)\)", README)
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path


def test_the_output_of_the_demo_is_that_of_a_real_one() -> None:
    shown = re.search(r"<!-- demo -->\n```text\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    for words in ("rank", "80% interval", "got val_loss", "FINISHED", "Best val_loss of 16 runs"):
        assert words in shown[1]
