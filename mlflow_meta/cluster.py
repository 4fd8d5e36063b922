"""What outgrows one machine: opening a cluster of Dask, or one of processes of this machine.

Only this module and `search.shards` know Dask; the others take an `Executor`, or what spreads a
search. When a worker dies, others do its work again: every call may be repeated.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow_meta.errors import NoCluster

if TYPE_CHECKING:
    from distributed import Client

    from mlflow_meta.search import Spread

CONNECT_S = 10.0  # for a scheduler to answer
WORKERS_S = 10.0  # for its first worker to be there
MAX_TOLD = 5  # workers that are named in one message
MAX_TEXT = 300  # characters of Dask's own words in one
_ADDRESS = re.compile(r"(tcp|tls)://\S+:\d+|local(:[1-9]\d*)?")
_OF_MALLOC = "distributed.nanny.pre-spawn-environ.MALLOC_"
_SETTINGS = {
    # All that is sent goes to the scheduler once; its size is no reason for a warning.
    "distributed.admin.large-graph-warning-threshold": "1TiB",
    # Dask has memory given back at once; matrices that come and go would wait for new pages.
    f"{_OF_MALLOC}MMAP_THRESHOLD_": 2**25,
    f"{_OF_MALLOC}TRIM_THRESHOLD_": 2**28,
}
_SAME = {
    "mlflow-meta": ("mlflow_meta",),
    "numpy": ("numpy",),
    "scipy": ("scipy",),
    "scikit-learn": ("scikit-learn", "sklearn"),
    "lightgbm": ("lightgbm",),
    "pyarrow": ("pyarrow",),
}
"""Package -> its distribution and its module, of which Dask asks one or the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster that is open.

    Attributes:
        address: Of its scheduler.
        executor: Runs calls on its workers; `train` and `harvest` take it, and may anyone else.
        spread: Searches on its workers; `suggest` and `top_k` take it.
        client: Dask's own.
    """

    address: str
    executor: Executor
    spread: Spread
    client: Client


def check_address(address: str) -> None:
    """Raise ValueError if `dask_cluster` can't take the address."""
    if not _ADDRESS.fullmatch(address):
        raise ValueError(
            f"{address!r} is no cluster: write the address of a scheduler of Dask, such as "
            "tcp://10.0.0.1:8786, or local or local:4 for processes of this machine."
        )


@contextmanager
def dask_cluster(address: str) -> Iterator[Cluster]:
    """Open a cluster of Dask; in the end, what still runs there for us is given up.

    Workers have one thread each (`dask worker ADDRESS --nworkers 4 --nthreads 1`) and, where these
    have MALLOC_MMAP_THRESHOLD_=33554432 and MALLOC_TRIM_THRESHOLD_=268435456 in their environment,
    are up to three times as fast. A script that opens a local one needs the usual
    `if __name__ == "__main__":`.

    Args:
        address: `tcp://host:port` or `tls://host:port` of a scheduler; `local` for as many
            processes of this machine as it has cores, `local:4` for four of them.

    Raises:
        ValueError: If it is no such address.
        NoCluster: If Dask is not installed, nobody answers there, no worker is there, or one has
            other versions of what the results hang on. Also when the cluster is lost later.

    Example:
        >>> with dask_cluster("tcp://10.0.0.1:8786") as cluster:
        ...     train(store, metric="rmse", executor=cluster.executor)
    """
    check_address(address)
    try:
        import dask
        from distributed import Client, KilledWorker, LocalCluster
        from distributed.comm.core import CommClosedError
    except ImportError as error:
        raise NoCluster(f"Dask is not installed here ({error}): pip install distributed") from error
    from mlflow_meta.search.spread import spread_on

    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_SETTINGS))
        if address.startswith("local"):
            n = int(address.partition(":")[2] or len(os.sched_getaffinity(0)))
            try:
                local = LocalCluster(
                    n_workers=n,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.ERROR,  # that a worker was busy when it was closed is none
                )
            except RuntimeError as error:
                raise NoCluster(f"{n} processes of Dask can't be started here: {error}") from error
            address = stack.enter_context(local).scheduler_address
        try:
            client = stack.enter_context(Client(address, timeout=CONNECT_S, set_as_default=False))
        except OSError as error:
            raise NoCluster(
                f"No scheduler of Dask answers at {address} ({error}). Is `dask scheduler` "
                "running, and is the address right? Without a cluster at hand, pass local."
            ) from error
        try:
            client.wait_for_workers(1, timeout=WORKERS_S)
        except TimeoutError as error:
            raise NoCluster(
                f"The scheduler at {address} has no workers. Start some, on any machine that has "
                f"mlflow-meta installed: `dask worker {address} --nthreads 1`."
            ) from error
        _check_versions(
            client.get_versions(packages=[name for all_ in _SAME.values() for name in all_])
        )
        try:
            yield Cluster(
                address=address,
                executor=client.get_executor(pure=False),  # what is read again is read anew
                spread=spread_on(client),
                client=client,
            )
        except KilledWorker as error:
            raise NoCluster(
                f"Again and again a worker of {address} died of the same work. Has it too little "
                f"memory? Dask says: {' '.join(str(error).split())[:MAX_TEXT]}"
            ) from error
        except (CancelledError, CommClosedError) as error:
            raise NoCluster(
                f"The scheduler at {address} has gone in the middle of the work. Run the same "
                "command again when it is back."
            ) from error


def _check_versions(found: Mapping[str, Any]) -> None:
    """Raise if one has other versions than are here; `found` is what Dask tells of all."""
    here = _versions(found["client"])
    everyone = {  # Dask's scheduler unpacks what is sent as well
        "the scheduler": found["scheduler"],
        **{f"the worker {name}": told for name, told in found["workers"].items()},
    }
    odd: list[str] = []
    for who, told in everyone.items():
        there = _versions(told)
        differs = [
            f"{name} {there[name]} (here {version})" if there[name] else f"no {name}"
            for name, version in here.items()
            if there[name] != version
        ]
        odd += [f"{who} has {', '.join(differs)}"] if differs else []
    if odd:
        more = f"; and {len(odd) - MAX_TOLD} more" if len(odd) > MAX_TOLD else ""
        raise NoCluster(
            "A cluster must have what is installed here, or results would differ, but "
            f"{'; '.join(odd[:MAX_TOLD])}{more}. Install the same there, such as by "
            f"`pip install -c constraints.txt '.[dask]'` in the same checkout, and restart them."
        )


def _versions(told: Mapping[str, Any]) -> dict[str, str | None]:
    """Package -> version, or None where it is not installed."""
    packages = told["packages"]
    python = ".".join(packages["python"].split(".")[:2])
    known = {k: next(filter(None, map(packages.get, names)), None) for k, names in _SAME.items()}
    return {"Python": python, **known}
