"""Crons that overlap: on a real server without a lock, and as commands with and without it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import roles
from click.testing import CliRunner
from mlflow import MlflowClient
from processes import Racers, begin, code, command, killed_at_last
from servers import mlflow_server
from world import item

from mlflow_meta.cli import main
from mlflow_meta.store import MlflowStore, names
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.publish import DISCARDED, is_draft
from mlflow_meta.store.sweep import sweep

pytestmark = pytest.mark.slow

N_CRONS = 6
N_SUGGESTIONS = 48
N_AT_ONCE = 5
TRY_LATER = 75
AT_ONCE_S = 2.0


@pytest.fixture
def server(empty_database: Path, tmp_path: Path) -> Iterator[str]:
    backend = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'server.db')}"
    with mlflow_server(backend, tmp_path / "server-artifacts") as uri:
        yield uri


def test_crons_that_overlap_without_a_lock_schedule_each_suggestion_once(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client, store = MlflowClient(tracking_uri=server), MlflowStore(server)
    protocol, naive = (client.create_experiment(name) for name in ("protocol", "naive"))
    with Racers(N_CRONS, tmp_path / "log") as crons:
        told = crons.race(roles.suggests, server, protocol, N_SUGGESTIONS)
        crons.race(roles.suggests_naively, server, naive, N_SUGGESTIONS)
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert set(map(tuple, told)) == {tuple(told[0])}
    sweep(Ledger.of(store, protocol))
    runs = store.search_runs(protocol)
    assert not [run for run in runs if is_draft(run)]
    kept = {run.run_id: run for run in runs if run.params.get(names.CLAIM) != DISCARDED}
    assert set(kept) == set(told[0])
    assert Counter(run.tags[names.KEY] for run in kept.values()) == {
        item(i).key: 1 for i in range(N_SUGGESTIONS)
    }
    for i, run_id in enumerate(told[0]):
        assert (kept[run_id].status, kept[run_id].params) == ("SCHEDULED", item(i).params)
    n_naive = Counter(run.tags[roles.NAIVE_KEY] for run in store.search_runs(naive))
    with capsys.disabled():
        click.echo(
            f"\n{N_CRONS} crons that overlap, {N_SUGGESTIONS} suggestions: 0 are doubled, "
            f"{len(runs) - len(kept)} drafts were discarded; the naive way doubles "
            f"{sum(n > 1 for n in n_naive.values())}, with {sum(n_naive.values())} runs"
        )


@pytest.fixture
def learned_uri(filled_uri: str) -> str:
    """`filled_uri` with a meta-model, so that it can be asked for suggestions."""
    for words in (["harvest"], ["train", "--metric", "val_loss", "--kind", "linear"]):
        result = CliRunner().invoke(main, [*words, "--tracking-uri", filled_uri])
        assert result.exit_code == 0, result.output
    return filled_uri


def scheduled(client: MlflowClient) -> dict[str, dict[str, str]]:
    experiment = client.get_experiment_by_name("sweep-a")
    runs = client.search_runs([experiment.experiment_id], "attributes.status = 'SCHEDULED'")
    return {run.info.run_id: run.data.params for run in runs}


def test_of_two_crons_on_a_machine_the_second_leaves_at_once_for_another_time(
    learned_uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    argv = [sys.executable, "-c", "from mlflow_meta.cli import main; main()", "suggest"]
    argv += ["-e", "sweep-a", "-n", "3", "--tracking-uri", learned_uri]
    env = {**os.environ, "TMPDIR": str(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true"}
    bare = time.monotonic()
    subprocess.run([sys.executable, "-c", "import click"], check=True)
    bare = time.monotonic() - bare
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    began = time.monotonic()
    both = [subprocess.Popen(argv, env=env, **pipes) for _ in range(2)]
    while all(process.poll() is None for process in both):
        time.sleep(0.01)
    took_s = time.monotonic() - began
    said = [process.communicate() for process in both]
    second = 0 if both[0].returncode == TRY_LATER else 1
    assert [both[second].returncode, both[1 - second].returncode] == [TRY_LATER, 0], said
    assert took_s < max(AT_ONCE_S, 4 * bare), f"{took_s:.1f} s, click alone {bare:.1f} s"
    stdout, stderr = said[second]
    assert stdout == "" and len(stderr.splitlines()) == 1
    assert "Another suggest of sweep-a" in stderr
    assert len(scheduled(client)) == 3


def test_crons_that_take_no_lock_all_tell_the_same_runs(
    learned_uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    words = ["suggest", "-e", "sweep-a", "-n", "5", "--no-lock", "--json"]
    logs = [tmp_path / f"log-{i}" for i in range(N_AT_ONCE)]
    processes = [begin(command, *words, "--tracking-uri", learned_uri, log=log) for log in logs]
    with killed_at_last(processes):
        codes = [code(process) for process in processes]
    said = [log.read_text() for log in logs]
    assert codes == [0] * N_AT_ONCE, said
    assert not [text for text in said if "Traceback" in text]
    told = [json.loads(text[text.index("{") :])["suggestions"] for text in said]
    first = {s["run_id"]: {k: str(v) for k, v in s["params"].items()} for s in told[0]}
    assert all([s["run_id"] for s in found] == list(first) for found in told)
    assert scheduled(client) == first
