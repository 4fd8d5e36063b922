"""Reading runs from a tracking server, page by page, several pages at a time.

Pages are found by keys: each asks for the runs of a window of start times, the earliest first, and
the next one begins where it ended. MLflow's own page tokens are offsets, which skip a run for every
one that is deleted while they are followed. A start time never changes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.service_pb2 import SearchRuns
from mlflow.utils.proto_json_utils import message_to_json
from mlflow.utils.rest_utils import http_request
from requests import Response

from mlflow_meta.errors import StoreRefused
from mlflow_meta.store.answers import as_columns, runs_in
from mlflow_meta.store.patience import patiently
from mlflow_meta.store.runs import Runs, joined
from mlflow_meta.store.texts import without_secrets

PAGE = 500  # runs of one request: some 3 MB, and a second of the server's time
LARGEST_PAGE = 50_000  # MLflow's own limit; for runs that all began in the same millisecond
SIDE_BY_SIDE = 4  # requests at a time: as many as `mlflow server` has workers by default
IDS = 100  # run ids in one filter

Ask = Callable[[dict[str, Any]], bytes]
Check = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Window:
    """Runs that began in `low_ms <= start <= high_ms`; None is without end."""

    low_ms: int | None
    high_ms: int | None
    page: int = PAGE

    def filter(self) -> str:
        """As MLflow's filter string."""
        ends = ((">=", self.low_ms), ("<=", self.high_ms))
        return " and ".join(f"attributes.start_time {op} {ms}" for op, ms in ends if ms is not None)


def over(client: MlflowClient) -> Ask:
    """How to ask for a page: of a server by HTTP, of a database by MLflow's own store."""
    store = client._tracking_client.store
    credentials = getattr(store, "get_host_creds", None)

    def by_http(body: dict[str, Any]) -> bytes:
        answer = http_request(
            credentials(),  # type: ignore[misc]
            "/api/2.0/mlflow/runs/search",
            "POST",
            max_retries=0,  # `PatientAdapter` asks again, for more reasons than MLflow does
            raise_on_status=False,
            json=body,
        )
        return content_of(answer)

    def by_store(body: dict[str, Any]) -> bytes:
        view = ViewType.from_string(body["run_view_type"].removesuffix("_ONLY").lower() + "_only")
        runs = store.search_runs(
            body["experiment_ids"], body["filter"], view, body["max_results"], body["order_by"]
        )
        message = SearchRuns.Response()
        message.runs.extend(run.to_proto() for run in runs)
        return str(message_to_json(message)).encode()

    return by_http if credentials else by_store


def content_of(answer: Response) -> bytes:
    """The body of an answer that is one.

    Raises:
        MlflowException: If it is not, with a code that tells whether to ask again, see `patiently`.
    """
    if answer.status_code != 200:
        raise MlflowException(
            f"{answer.status_code} {answer.text[:200]}", error_code=_code(answer.status_code)
        )
    return bytes(answer.content)


def read_rest(ask: Ask, experiment_ids: Sequence[str], check: Check = lambda _: None) -> Runs:
    """The active runs of some experiments, without their secrets.

    Args:
        ask: See `over`.
        experiment_ids: Which.
        check: Called with how many runs have been read so far; what it raises ends the reading.

    Raises:
        TryLater: If the server does not answer, for as long as it is waited for.
        StoreRefused: If this user may not read.
    """
    if not experiment_ids:
        return Runs.empty()
    return without_secrets(joined(_pages(ask, experiment_ids, [Window(None, None)], check)))


def read_changed(
    ask: Ask,
    experiment_ids: Sequence[str],
    *,
    since_ms: int,
    open_ids: Sequence[str],
    check: Check = lambda _: None,
) -> Runs:
    """The active runs that began or ended since a time, and of those that were open then.

    Raises:
        TryLater: If the server does not answer, for as long as it is waited for.
    """
    if not experiment_ids:
        return Runs.empty()
    filters = [
        f"attributes.end_time >= {since_ms} and attributes.start_time < {since_ms}",
        *(
            "attributes.run_id IN ({})".format(", ".join(f"'{run_id}'" for run_id in part))
            for part in _parts(open_ids, IDS)
        ),
    ]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        found = [pool.submit(_passing, ask, experiment_ids, text) for text in filters]
        begun = _pages(ask, experiment_ids, [Window(since_ms, None)], check)
        return joined([*begun, *chain.from_iterable(future.result() for future in found)])


def _passing(ask: Ask, experiment_ids: Sequence[str], text: str) -> list[Runs]:
    """The runs that pass a filter, by windows of their start."""
    found, todo = [], deque([Window(None, None)])
    while todo:
        runs, rest = _page(ask, experiment_ids, todo.popleft(), text)
        found.append(runs)
        todo.extend(rest)
    return found


def _pages(
    ask: Ask, experiment_ids: Sequence[str], windows: Iterable[Window], check: Check
) -> list[Runs]:
    """The pages of some windows, read side by side."""
    pages: list[Runs] = []
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:

        def fetch(window: Window) -> Future[tuple[Runs, list[Window]]]:
            return pool.submit(_page, ask, experiment_ids, window)

        pending = {fetch(window) for window in windows}
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    page, rest = future.result()
                    pages.append(page)
                    pending |= {fetch(window) for window in rest}
                check(sum(map(len, pages)))
        except BaseException:
            for future in pending:
                future.cancel()
            raise
    return pages


def _page(
    ask: Ask, experiment_ids: Sequence[str], window: Window, also: str = ""
) -> tuple[Runs, list[Window]]:
    """The first runs of a window, and the windows that are left to read."""
    body = {
        "experiment_ids": list(experiment_ids),
        "filter": " and ".join(text for text in (window.filter(), also) if text),
        "run_view_type": "ACTIVE_ONLY",
        "max_results": window.page,
        "order_by": ["attributes.start_time ASC"],
    }
    runs = patiently(lambda: runs_in(ask(body)))
    if len(runs) < window.page:
        return as_columns(runs), []
    starts = [run.info.start_time for run in runs]
    last = starts[-1]
    if last == starts[0]:  # the next page would be the same
        if window.page >= LARGEST_PAGE:
            raise StoreRefused(
                f"More than {LARGEST_PAGE} runs began at the same time ({last} ms): they can't be "
                "told apart over REST. Pass --store-uri with the address of the database."
            )
        return as_columns(runs), [Window(last, window.high_ms, min(8 * window.page, LARGEST_PAGE))]
    high = window.high_ms
    if high is None:
        # Two halves where most of what is left may lie, and one for what has begun meanwhile.
        high = max(int(time.time() * 1000), last + 1)
        rest = [Window(high + 1, None)]
    else:
        rest = []
    cuts = np.linspace(last - 1, high, (SIDE_BY_SIDE if rest else 2) + 1).astype(np.int64)
    cuts[-1] = high
    spans = pairwise(cuts.tolist())
    return as_columns(runs), [*(Window(a + 1, b) for a, b in spans if b > a), *rest]


def _parts(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _code(status: int) -> int:
    from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, PERMISSION_DENIED, UNAUTHENTICATED

    return {401: UNAUTHENTICATED, 403: PERMISSION_DENIED}.get(status, INTERNAL_ERROR)
