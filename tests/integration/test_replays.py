"""What the state machine does in memory ends in the same way where a real server does it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from loop import End, Loop, Step, play
from mlflow import MlflowClient
from nightly import nightly
from servers import make_fresh, mlflow_server

from mlflow_meta.store import MlflowStore, publish
from mlflow_meta.testing import InMemoryStore

pytestmark = pytest.mark.slow

N_SEQUENCES = 40 if nightly() else 4


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def server(
    request: pytest.FixtureRequest,
    empty_database: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("replays")
    if request.param == "postgres":
        backend = request.getfixturevalue("postgres_uri")
    else:
        backend = f"sqlite:///{shutil.copy(empty_database, folder / 'mlflow.db')}"
    with mlflow_server(backend, folder / "artifacts") as uri:
        yield uri


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps in the same order every time."""
    monkeypatch.setattr(publish, "SIDE_BY_SIDE", 1)


def sequences() -> list[tuple[list[Step], list[End]]]:
    """Of those that the state machine plays in memory, those after which there are most runs."""
    Loop.played.clear()
    settled = settings(max_examples=100, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(Loop, settings=settled)
    played = [(steps, play(InMemoryStore("sweep"), "sweep", steps)) for steps in Loop.played]
    return sorted(played, key=lambda pair: (len(pair[1]), len(pair[0])))[-N_SEQUENCES:]


def test_sequences_of_the_state_machine_end_on_a_server_as_they_end_in_memory(server: str) -> None:
    client = MlflowClient(tracking_uri=server)
    for number, (steps, ends) in enumerate(sequences()):
        make_fresh(client, f"replay {number}")
        client.create_experiment(f"replay {number}")
        assert len(ends) > 3
        assert play(MlflowStore(server), f"replay {number}", steps) == ends, steps
