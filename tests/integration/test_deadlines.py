"""Every command that talks to a server ends by its deadline, and leaves nothing by halves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import fill
from fault_proxy import Fault, FaultProxy
from faults import quick_server, say
from mlflow import MlflowClient

from mlflow_meta.cli import main

DEADLINE_S = 1.0
OVERHEAD_S = 5.0
TRAINER = str(Path(__file__).parent.parent / "trainer.py")
TRY_LATER = 75

pytestmark = pytest.mark.slow

COMMANDS: dict[str, Sequence[str]] = {
    "doctor": ["doctor"],
    "harvest": ["harvest", "--full"],
    "space": ["space"],
    "train": ["train", "--metric", "val_loss", "--kind", "linear"],
    "explain": ["explain", "-e", "sweep-a"],
    "backtest": ["backtest", "-e", "sweep-a", "--metric", "val_loss"],
    "suggest": ["suggest", "-e", "sweep-a", "-n", "2", "--more"],
    "explore": ["suggest", "-e", "sweep-b", "-n", "2", "--metric", "val_loss", "--explore",
                "--more"],
    "work": ["work", "-e", "sweep-a", "--max-runs", "1", "--lease", "1s", "--", "true"],
    "report": ["report", "-e", "sweep-a"],
    "lineage": ["lineage", "RUN"],
    "tune": ["tune", "-e", "sweep-a", "--metric", "val_loss", "--rounds", "1", "-n", "1",
             "--", "true"],
}  # fmt: skip
FAULTS: dict[str, Fault] = {
    "no answer": Fault("hang", times=None),
    "429, ask again in an hour": Fault("status", status=429, retry_after="3600", times=None),
    "504 after it was done": Fault("status_after", status=504, times=None),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two experiments, of which one has suggestions, with a harvest and a champion."""
    with quick_server() as url:
        fill(MlflowClient(url), tmp_path_factory.mktemp("filled"))
        for command in ("harvest", "train"):
            assert run(url, *COMMANDS[command])[0].exit_code == 0
        assert run(url, "suggest", "-e", "sweep-a", "-n", "8")[0].exit_code == 0
        yield url


def run(uri: str, *args: str, deadline: str | None = None) -> tuple[Result, float]:
    """A command, and the seconds that it took."""
    split = args.index("--") if "--" in args else len(args)
    options = ["--tracking-uri", uri, *(["--deadline", deadline] if deadline else [])]
    began = time.monotonic()
    result = CliRunner().invoke(main, [*args[:split], *options, *args[split:]])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result, time.monotonic() - began


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_ends_by_its_deadline_and_leaves_nothing_by_halves(
    server: str, name: str
) -> None:
    client = MlflowClient(server)
    words = list(COMMANDS[name])
    if name == "lineage":
        experiment = client.get_experiment_by_name("sweep-a")
        runs = client.search_runs([experiment.experiment_id], "tags.`mlflow_meta.rank` = '1'")
        words[1] = runs[0].info.run_id
    with FaultProxy(server) as proxy:
        result, own_s = run(proxy.url, *words)
        n_requests = len(proxy.log)
        assert result.exit_code in (0, 1), result.output
        for i, fault in enumerate(FAULTS):
            k = (1, n_requests // 2, 3 * n_requests // 4)[i]  # later runs make no ledger
            proxy.arm(replace(FAULTS[fault], n=k))
            result, took = run(proxy.url, *words, deadline="1s")
            say(f"{name}, {fault} from request {k} on: {took:.1f} s, code {result.exit_code}")
            # A busy machine takes its time for what needs no server.
            assert took < max(DEADLINE_S, own_s) + OVERHEAD_S
            assert result.exit_code == TRY_LATER, result.output
            assert "Traceback" not in result.stderr
            assert result.stderr.splitlines()[-1].startswith(
                ("The tracking server did not answer", "The deadline of 1 s passed")
            )
    assert run(server, *words)[0].exit_code in (0, 1)
    for experiment in client.search_experiments():
        runs = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
        drafts = [r for r in runs if "mlflow_meta.key" in r.data.tags]
        assert not [r for r in drafts if "mlflow_meta.claim" not in r.data.params]
        scheduled = client.search_runs(
            [experiment.experiment_id], "attributes.status = 'SCHEDULED'"
        )
        assert all(r.data.params and r.data.metrics for r in scheduled)
