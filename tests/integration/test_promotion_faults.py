"""Training over a real server, where a process dies at any of its requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import add_run
from fault_proxy import FaultProxy
from faults import FOR_GOOD, ONCE, Died, Kind, patience, quick_server, show
from mlflow import MlflowClient
from nightly import nightly

from mlflow_meta.errors import MetaError
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.promote import promote
from mlflow_meta.services.train import Training, train
from mlflow_meta.store import MlflowStore, registry

NAME = "mlflow-meta-loss"
N_TRIALS = 45
"""Each kind of fault comes at every request at night, else at so many in all, evenly apart."""
KINDS: dict[str, Kind] = {
    "gone before it": FOR_GOOD["gone before it"],
    "gone after it": FOR_GOOD["gone after it"],
    "answer lost": ONCE["answer lost"],
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """With runs, a harvest, a champion, and runs that are newer."""
    with quick_server() as url:
        client = MlflowClient(url)
        experiment = client.create_experiment("sweep")
        for n in (30, 30):
            for i in range(n):
                params = {"lr": 10 ** -(i % 7), "depth": i % 5}
                add_run(client, experiment, params=params, metrics={"loss": i % 7 + 0.1 * (i % 5)})
            harvest(MlflowStore(url))
            if n_versions(client) == 0:
                trained(MlflowStore(url))
        yield url


def trained(store: MlflowStore) -> Training:
    return train(store, metric="loss", kinds=["linear"], promote=True)


def n_versions(client: MlflowClient) -> int:
    return len(client.search_model_versions(f"name = '{NAME}'"))


def is_whole(url: str) -> bool:
    """Whether the champion can be loaded, and is what was trained; raises if it can't."""
    version = registry.champion(MlflowStore(url), metric="loss")
    return version.model.has_signal


def test_a_training_that_dies_at_any_request_leaves_a_champion_that_loads(server: str) -> None:
    client = MlflowClient(server)
    with FaultProxy(server) as proxy:
        trained(MlflowStore(proxy.url))
        n_requests = len(proxy.log)
        stride = 1 if nightly() else len(KINDS) * n_requests // N_TRIALS
        rows: dict[str, tuple[int, int, int, int]] = {}
        for i, (kind, fault) in enumerate(KINDS.items()):
            n_trials, n_died, n_moved, n_too_many = 0, 0, 0, 0
            for n in range(1 + i * stride // len(KINDS), n_requests + 1, stride):
                before, was = n_versions(client), champion(client)
                store = MlflowStore(proxy.url, patience=patience(kind, "dies"))
                proxy.arm(*fault(n))
                try:
                    trained(store)
                except (Died, MetaError):
                    n_died += 1
                proxy.arm()
                assert is_whole(server), f"{kind} at request {n}"
                n_trials += 1
                n_moved += champion(client) != was
                n_too_many += n_versions(client) > before + 1
            rows[kind] = n_trials, n_died, n_moved, n_too_many
    show(f"train, register, promote: {n_requests} requests", rows,
         ["trials", "died", "champion moved", "two versions"])  # fmt: skip
    assert sum(row[0] for row in rows.values()) >= 40
    assert all(row[3] == 0 for row in rows.values()), "a training made two versions"
    assert rows["answer lost"][1] == 0, "a training gave up after one fault"
    assert all(row[1] > 0.9 * row[0] for kind, row in rows.items() if kind in FOR_GOOD)
    promote(MlflowStore(server), metric="loss")  # and life goes on
    assert is_whole(server)


def champion(client: MlflowClient) -> str:
    return str(client.get_model_version_by_alias(NAME, "champion").version)
