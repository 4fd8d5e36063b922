"""Reading the histories of metrics from a tracking server, several requests side by side.

Which curves there are is known from the runs' last values. `get-history-bulk` answers for many runs
at once, and leaves out without a word what is beyond its maximum: what may be cut is asked for
again. Where a server does not have it, `get-history` answers for one run at a time, in pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.utils.rest_utils import MlflowHostCreds, http_request

from mlflow_meta.store import curves
from mlflow_meta.store.answers import decoded, number
from mlflow_meta.store.patience import patiently
from mlflow_meta.store.rest import SIDE_BY_SIDE, Check, content_of
from mlflow_meta.store.runs import KEY, METRICS, Runs, by_key, ordered

MOST_POINTS = 25_000  # MLflow's own limit of one answer
RUN_IDS = 50  # of one request: its address must have less than 4,094 characters
FEWER_RUN_IDS = 20  # all that MLflow takes before 2.10
NOT_OFFERED = (401, 403, 404, 405, 414, 501)
"""What a server answers, or a gateway before it, where requests for many runs are not served."""
BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
PAGES = "/api/2.0/mlflow/metrics/get-history"

T = TypeVar("T")


class Point(msgspec.Struct, gc=False):
    """One value of a metric; in an answer about many runs, with its run."""

    value: float | str | None = 0.0
    timestamp: int = 0
    step: int = 0
    run_id: str = ""


class _Answer(msgspec.Struct):
    metrics: list[Point] = []
    next_page_token: str = ""


class NotOffered(Exception):
    """Histories of many runs at once are not served."""


class Source(Protocol):
    """Where histories are asked for. Asking again is safe; `patiently` does it."""

    def many(self, key: str, run_ids: Sequence[str]) -> list[Point]:
        """The first `MOST_POINTS` points of a metric of some runs, run after run.

        Raises:
            NotOffered: If this is not served here.
        """
        ...

    def page(self, key: str, run_id: str, token: str) -> tuple[list[Point], str]:
        """At most `MOST_POINTS` points of one run, and the token of the next page or nothing.

        Raises:
            MlflowException: With the code RESOURCE_DOES_NOT_EXIST if the run is gone.
        """
        ...


def source(client: MlflowClient) -> Source:
    """A server by HTTP, or a database by MLflow's own store."""
    store = client._tracking_client.store
    credentials = getattr(store, "get_host_creds", None)
    return OverHttp(credentials) if credentials else OfStore(store)


@dataclass(slots=True)
class OverHttp:
    """A tracking server.

    Attributes:
        credentials: How to reach it.
        serves_many: Whether it does, as far as is known.
        at_once: Of how many runs, as far as is known.
    """

    credentials: Callable[[], MlflowHostCreds]
    serves_many: bool = True
    at_once: int = RUN_IDS
    _decoder: msgspec.json.Decoder[_Answer] = field(
        default_factory=lambda: msgspec.json.Decoder(_Answer, strict=False)
    )

    def many(self, key: str, run_ids: Sequence[str]) -> list[Point]:
        """See `Source`."""
        points: list[Point] = []
        start = 0
        while start < len(run_ids) and len(points) < MOST_POINTS:  # beyond, some would be left out
            if not self.serves_many:
                raise NotOffered
            part = run_ids[start : start + self.at_once]
            answer = self._get(
                BULK, {"metric_key": key, "run_id": part, "max_results": MOST_POINTS}
            )
            if answer.status_code in NOT_OFFERED:
                self.serves_many = False
            elif answer.status_code == 400 and f"more than {FEWER_RUN_IDS} run_ids" in answer.text:
                self.at_once = FEWER_RUN_IDS
            else:
                points += decoded(content_of(answer), self._decoder).metrics
                start += len(part)
        return points

    def page(self, key: str, run_id: str, token: str) -> tuple[list[Point], str]:
        """See `Source`."""
        asked = {"metric_key": key, "run_id": run_id, "max_results": MOST_POINTS}
        answer = self._get(PAGES, asked | ({"page_token": token} if token else {}))
        if answer.status_code == 404 and "RESOURCE_DOES_NOT_EXIST" in answer.text:
            raise MlflowException(answer.text[:200], error_code=RESOURCE_DOES_NOT_EXIST)
        page = decoded(content_of(answer), self._decoder)
        return page.metrics, page.next_page_token

    def _get(self, path: str, asked: dict[str, Any]) -> Any:
        return http_request(
            self.credentials(), path, "GET", max_retries=0, raise_on_status=False, params=asked
        )


@dataclass(frozen=True, slots=True)
class OfStore:
    """A store of MLflow's, such as that of a database."""

    store: Any

    def many(self, key: str, run_ids: Sequence[str]) -> list[Point]:
        """See `Source`."""
        if not hasattr(self.store, "get_metric_history_bulk"):
            raise NotOffered
        found = self.store.get_metric_history_bulk(list(run_ids), key, MOST_POINTS)
        return [_point(metric, metric.run_id) for metric in found]

    def page(self, key: str, run_id: str, token: str) -> tuple[list[Point], str]:
        """See `Source`."""
        found = self.store.get_metric_history(
            run_id, key, max_results=MOST_POINTS, page_token=token or None
        )
        return [_point(metric, run_id) for metric in found], found.token or ""


def _point(metric: Metric, run_id: str) -> Point:
    return Point(metric.value, metric.timestamp, metric.step, run_id)


def read_curves(
    asked: Source, runs: Runs, patterns: Sequence[str], check: Check = lambda _: None
) -> pa.Table:
    """The curves of some metrics, as `Runs.curves` has them.

    Args:
        asked: See `source`.
        runs: In order.
        patterns: See `curves.wanted`.
        check: Called with how many runs there are, after each request; what it raises ends it.

    Raises:
        Unreachable: If the server does not answer, after several attempts.
        StoreRefused: If this user may not read.
    """
    ids = runs.run_ids.to_pylist()
    parts = [
        (key, rows[start : start + RUN_IDS].tolist())
        for key, rows, _ in by_key(curves.wanted(runs, patterns))
        for start in range(0, len(rows), RUN_IDS)
    ]

    def read(key: str, rows: Sequence[int]) -> pa.Table:
        row_of = {ids[row]: row for row in rows}
        tables = [_table(key, row_of[run], found) for run, found in _found(asked, key, [*row_of])]
        return curves.kept(pa.concat_tables([METRICS.empty_table(), *tables]))

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        pending = [pool.submit(read, *part) for part in parts]
        try:
            for done in as_completed(pending):
                done.result()
                check(len(runs))
            tables = [future.result() for future in pending]
        except BaseException:
            for future in pending:
                future.cancel()
            raise
    return ordered(pa.concat_tables([METRICS.empty_table(), *tables]))


def _found(asked: Source, key: str, run_ids: list[str]) -> Iterator[tuple[str, list[Point]]]:
    """Each run with its whole history."""
    left = run_ids
    while left:
        try:
            points = patiently(lambda: asked.many(key, left))  # noqa: B023 - called at once
        except NotOffered:
            break
        found = [(run_id, list(group)) for run_id, group in groupby(points, lambda p: p.run_id)]
        if len({run_id for run_id, _ in found}) < len(found):
            break  # they do not come one after the other: any may be cut
        cut = len(points) >= MOST_POINTS
        if cut:  # the last run may lack points, and others be left out
            last, _ = found.pop()
            found = found or [(last, _history(asked, key, last))]
        yield from found
        done = {run_id for run_id, _ in found}
        left = [run_id for run_id in left if run_id not in done]
        if not cut:
            break  # those that are left have no point, which is odd
    for run_id in left:
        yield run_id, _history(asked, key, run_id)


def _history(asked: Source, key: str, run_id: str) -> list[Point]:
    """All points of one run. A page may repeat points where the run has logged meanwhile."""
    points: dict[tuple[int, int, str], Point] = {}
    token = ""
    while True:
        try:
            page, token = patiently(lambda: asked.page(key, run_id, token))  # noqa: B023
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return []  # deleted for good, since its last value was read
            raise
        points.update(((p.timestamp, p.step, str(p.value)), p) for p in page)
        if not token or not page:
            return list(points.values())


def _table(key: str, run: int, points: list[Point]) -> pa.Table:
    n = len(points)
    columns = [
        pa.array(np.full(n, run, dtype=np.int32)),
        pa.DictionaryArray.from_arrays(np.zeros(n, dtype=np.int32), pa.array([key])).cast(KEY),
        pa.array([number(point.value) for point in points], pa.float64()),
        pa.array([point.timestamp for point in points], pa.int64()),
        pa.array([point.step for point in points], pa.int64()),
    ]
    return pa.table(columns, schema=METRICS)
