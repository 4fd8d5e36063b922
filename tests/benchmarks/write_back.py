"""Writing suggestions to a server, ledger included, beside the fluent API writing the same runs.

`python tests/benchmarks/write_back.py` starts `mlflow server` on SQLite, writes batches of 50 in
turn by either way, and prints the medians of the seconds for one run and their ratio.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import mlflow
from mlflow import MlflowClient

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers import mlflow_server

from mlflow_meta.store import MlflowStore, names, plans
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.store.plans import Item
from mlflow_meta.store.publish import publish

BATCH = 50
N_PARAMS = 20


def items_of(batch: int, n: int) -> list[Item]:
    """Suggestions that differ from those of all other batches."""
    return [
        Item(
            suggestion=plans.digest([batch, i]),
            name=f"suggested {i}",
            params={f"param_{j}": str(batch + i / (j + 1)) for j in range(N_PARAMS)},
            metrics={f"{x}predicted_loss": 0.1 * i for x in ("", "std_", "low_80_", "high_80_")},
            tags={names.RANK: str(i + 1), names.TASK: "task", "mlflow.note.content": "why " * 100},
        )
        for i in range(n)
    ]


def ours_s(store: MlflowStore, experiment_id: str, batch: int, items: Sequence[Item]) -> float:
    """Seconds for one run, of a batch: plan, ledger, params, predictions, status."""
    began = time.perf_counter()
    ledger = Ledger.of(store, experiment_id)
    publish(ledger, plans.decide(ledger, plans.digest(batch), items, {}, {}))
    return (time.perf_counter() - began) / len(items)


def fluent_s(client: MlflowClient, experiment_id: str, items: Sequence[Item]) -> float:
    """Seconds for one run by MLflow's fluent API, which writes one after the other."""
    began = time.perf_counter()
    for item in items:
        with mlflow.start_run(
            experiment_id=experiment_id, run_name=item.name, tags=dict(item.tags)
        ) as run:
            mlflow.log_params(dict(item.params))
            mlflow.log_metrics(dict(item.metrics))
        client.update_run(run.info.run_id, status="SCHEDULED")
    return (time.perf_counter() - began) / len(items)


def compare(url: str, n: int) -> tuple[float, float]:
    """Medians of the seconds for one run over batches of both ways in turn: ours, and theirs."""
    client, store = MlflowClient(url), MlflowStore(url)
    mlflow.set_tracking_uri(url)
    experiment_id = client.create_experiment("written")
    ours, theirs = [], []
    for batch in range(n // BATCH):
        ours.append(ours_s(store, experiment_id, batch, items_of(batch, BATCH)))
        theirs.append(fluent_s(client, experiment_id, items_of(-1 - batch, BATCH)))
    return statistics.median(ours), statistics.median(theirs)


def main(n: int = 100) -> None:
    """Print the ratio."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mlflow_server(f"sqlite:///{folder}/mlflow.db", Path(folder), workers=4) as url,
    ):
        ours, theirs = compare(url, n)
    print(
        f"{n} suggestions of {N_PARAMS} params, ledger included: {1000 * ours:.0f} ms each; by the "
        f"fluent API {1000 * theirs:.0f} ms each: {theirs / ours:.1f} times the rate."
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
