"""Many processes that want the same of a real server at the same moment."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import roles
from mlflow import MlflowClient
from nightly import nightly
from processes import Racers
from servers import make_fresh, mlflow_server
from world import item

from mlflow_meta.store import MlflowStore, names, plans
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.publish import DISCARDED, is_draft, publish
from mlflow_meta.store.sweep import sweep

pytestmark = pytest.mark.slow

N_PROCESSES = 20
N_CLAIMS = 100 if nightly() else 20
N_ELECTIONS = 20 if nightly() else 4
N_PLANS = 10 if nightly() else 2
N_SUGGESTIONS = 3


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def server(
    request: pytest.FixtureRequest,
    empty_database: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("races")
    if request.param == "postgres":
        backend = request.getfixturevalue("postgres_uri")
    else:
        backend = f"sqlite:///{shutil.copy(empty_database, folder / 'mlflow.db')}"
    with mlflow_server(backend, folder / "artifacts") as uri:
        yield uri


@pytest.fixture(scope="module")
def racers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Racers]:
    with Racers(N_PROCESSES, tmp_path_factory.mktemp("racers") / "log") as racers:
        yield racers


def test_all_that_elect_a_ledger_on_a_fresh_server_at_once_get_the_same(
    server: str, racers: Racers
) -> None:
    client = MlflowClient(tracking_uri=server)
    for race in range(N_ELECTIONS):
        make_fresh(client, f"{race}")
        experiment_id = client.create_experiment(f"election {race}")
        elected = set(racers.race(roles.elects, server, experiment_id))
        assert elected == {Ledger.of(MlflowStore(server), experiment_id).run_id}


def test_a_plan_that_many_publish_at_once_is_one_set_of_runs_without_ghosts(
    server: str, racers: Racers
) -> None:
    client, store = MlflowClient(tracking_uri=server), MlflowStore(server)
    for race in range(N_PLANS):
        experiment_id = client.create_experiment(f"plan {race}")
        told = racers.race(roles.publishes, server, experiment_id, N_SUGGESTIONS)
        assert set(map(tuple, told)) == {tuple(told[0])}
        sweep(Ledger.of(store, experiment_id))
        runs = store.search_runs(experiment_id, key=None)
        kept = {run.run_id: run for run in runs if run.params.get(names.CLAIM) != DISCARDED}
        assert set(kept) == set(told[0])
        assert [kept[run_id].status for run_id in told[0]] == ["SCHEDULED"] * N_SUGGESTIONS
        assert [kept[run_id].params for run_id in told[0]] == [
            item(i).params for i in range(N_SUGGESTIONS)
        ]
        assert not [run for run in runs if is_draft(run)]
        assert store.search_runs(store.own_experiment_id(), status="RUNNING", kind=None) == []


def test_of_many_processes_that_claim_a_run_at_once_exactly_one_gets_it(
    server: str, racers: Racers
) -> None:
    store = MlflowStore(server)
    experiment_id = MlflowClient(tracking_uri=server).create_experiment("claims")
    ledger = Ledger.of(store, experiment_id)
    items = [item(i) for i in range(N_CLAIMS)]
    run_ids = publish(ledger, plans.decide(ledger, "claims", items, {}, {}))
    for run_id, tokens in zip(
        run_ids, zip(*racers.race(roles.claims, server, run_ids), strict=True), strict=True
    ):
        (winner,) = (token for token in tokens if token)
        run = store.get_run(run_id)
        assert (run.status, run.params[names.CLAIM]) == ("RUNNING", winner)
        assert run.tags[names.HEARTBEAT] == f"{winner} 0"
    assert Counter(run.status for run in store.search_runs(experiment_id)) == {"RUNNING": N_CLAIMS}
