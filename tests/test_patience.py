"""How long a server is waited for, and what is asked of it again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fault_proxy import Fault, FaultProxy
from mlflow.utils import request_utils
from requests.adapters import HTTPAdapter
from test_fault_proxy import Upstream, serving

from mlflow_meta.errors import TryLater
from mlflow_meta.store import MlflowStore
from mlflow_meta.store import patience as module
from mlflow_meta.store.patience import (
    ATTEMPTS,
    LONGEST_RETRY_AFTER_S,
    Patience,
    PatientAdapter,
    Silence,
    Unsure,
    be_patient,
)
from mlflow_meta.store.quick_answers import hasten


class Clock:
    """A clock that goes on when somebody sleeps, or when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


# What was waited


def outage(patience: Patience, clock: Clock, seconds: float) -> None:
    """A request is not answered for so long, and then it is."""
    patience.silent(clock.now)
    clock.now += seconds
    patience.answered()


def test_of_a_server_that_answers_nothing_is_waited_for_longer(clock: Clock) -> None:
    patience = Patience(10, clock=clock)
    clock.now += 1000
    assert patience.left_s() == 10


def test_what_was_waited_counts_together(clock: Clock) -> None:
    patience = Patience(10, clock=clock)
    outage(patience, clock, 4)
    assert patience.left_s() == 6
    outage(patience, clock, 4)
    assert patience.left_s() == 2
    patience.silent(clock.now)
    clock.now += 3
    assert patience.left_s() == -1


def test_requests_side_by_side_wait_for_one_outage(clock: Clock) -> None:
    patience = Patience(10, clock=clock)
    began = clock.now
    for _ in range(4):
        patience.silent(began)
        clock.now += 1
    assert patience.left_s() == 6


def test_what_was_waited_is_forgiven_as_fast_as_the_server_answers(clock: Clock) -> None:
    patience = Patience(10, clock=clock)
    outage(patience, clock, 6)
    clock.now += 5
    patience.silent(clock.now)
    assert patience.left_s() == 10 - (6 - 5)
    patience.answered()
    clock.now += 100
    patience.silent(clock.now)
    assert patience.left_s() == 10


def test_one_request_gets_no_more_than_all_and_none_goes_beyond_the_end(clock: Clock) -> None:
    patience = Patience(10, until=clock.now + 7, clock=clock)
    assert patience.left_s() == 7
    assert patience.left_s(clock.now - 8) == 2
    clock.now += 8
    assert patience.left_s() == -1


# What is asked again


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with serving() as server:
        yield server


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultProxy]:
    with FaultProxy(upstream.url) as proxy:
        yield proxy


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        adapter = HTTPAdapter()
        for scheme in ("http://", "https://"):
            session.mount(scheme, PatientAdapter(adapter))
        yield session


@pytest.fixture
def patience(proxy: FaultProxy, clock: Clock) -> Patience:
    """With the server behind the proxy."""
    patience = Patience(60, clock=clock)
    be_patient(proxy.url, patience)
    return patience


def post(session: requests.Session, proxy: FaultProxy, path: str = "/runs/search") -> int:
    return session.post(f"{proxy.url}{path}", data="x").status_code


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop_before", times=3),
        Fault("drop_after", times=3),
        Fault("partial", times=3),
        *(Fault("status", status=status, times=3) for status in (400, 408, 429, 500, 502, 503)),
        Fault("status_after", status=504, times=3),
        Fault("status", status=400, content=b'{"error_code": "BAD_REQUEST"}', times=3),
        Fault("status", status=500, content=b'{"error_code": "INTERNAL_ERROR"}', times=3),
    ],
)
def test_a_request_is_sent_until_it_has_a_whole_answer(
    session: requests.Session, proxy: FaultProxy, fault: Fault
) -> None:
    proxy.arm(fault)
    assert post(session, proxy) == 201
    assert [entry.action for entry in proxy.log] == [fault.action] * 3 + [None]


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("code", ["INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS"])
def test_what_mlflow_refuses_for_good_is_not_asked_again(
    session: requests.Session, proxy: FaultProxy, code: str
) -> None:
    content = json.dumps({"error_code": code}).encode()
    proxy.arm(Fault("status", status=400, content=content, times=None))
    assert post(session, proxy) == 400
    assert len(proxy.log) == 1


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("status", [200, 204, 401, 403, 404, 409, 501])
def test_other_answers_are_answers(
    session: requests.Session, proxy: FaultProxy, status: int
) -> None:
    proxy.arm(Fault("status", status=status, content=b"", times=None))
    assert post(session, proxy) == status
    assert len(proxy.log) == 1


@pytest.mark.parametrize("status", [400, 500])
def test_a_refusal_that_may_be_of_the_moment_is_believed_after_some_attempts(
    session: requests.Session, proxy: FaultProxy, patience: Patience, status: int
) -> None:
    proxy.arm(Fault("status", status=status, times=None))
    assert post(session, proxy) == status
    assert len(proxy.log) == ATTEMPTS
    assert patience.left_s() < 60


def test_the_waits_double_and_end_with_the_patience(
    session: requests.Session, proxy: FaultProxy, patience: Patience, clock: Clock
) -> None:
    proxy.arm(Fault("status", status=503, times=None))
    began = clock.now
    with pytest.raises(Silence, match="503 injected"):
        post(session, proxy)
    assert clock.now - began == pytest.approx(60, abs=0.1)
    assert all(0.05 <= a <= 0.1 and b <= 5 for a, b in [clock.slept[:2]])
    assert max(clock.slept) <= module.LONGEST_WAIT_S
    n_sent = len(proxy.log)
    with pytest.raises(Silence):  # as long as nobody has answered, the patience stays at its end
        post(session, proxy)
    assert len(proxy.log) <= n_sent + 1


def test_retry_after_is_heeded_up_to_a_limit(
    session: requests.Session, proxy: FaultProxy, patience: Patience, clock: Clock
) -> None:
    proxy.arm(
        Fault("status", status=429, retry_after="7"),
        Fault("status", status=429, retry_after="3600", n=2),
        Fault("status", status=503, retry_after="Fri, 31 Dec 1999 23:59:59 GMT", n=3),
    )
    assert post(session, proxy) == 201
    assert clock.slept[:2] == [7.0, LONGEST_RETRY_AFTER_S]
    assert clock.slept[2] < 1


def test_no_wait_goes_beyond_the_patience(
    session: requests.Session, proxy: FaultProxy, patience: Patience, clock: Clock
) -> None:
    patience.until = clock.now + 2
    proxy.arm(Fault("status", status=429, retry_after="3600", times=None))
    with pytest.raises(Silence):
        post(session, proxy)
    assert clock.slept == [2.0]


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("path", ["/api/2.0/mlflow/runs/create", "/mlflow/model-versions/create"])
@pytest.mark.parametrize("action", ["drop_before", "drop_after", "partial", "status"])
def test_a_request_that_must_not_be_repeated_is_sent_once(
    session: requests.Session, proxy: FaultProxy, path: str, action: str
) -> None:
    proxy.arm(Fault(action, times=None))  # type: ignore[arg-type]
    with pytest.raises(Unsure) as told:
        post(session, proxy, path)
    assert len(proxy.log) == 1
    assert (told.value.response is not None) == (action == "status")


@pytest.mark.usefixtures("patience")
def test_a_file_is_sent_from_its_beginning_each_time(
    session: requests.Session, proxy: FaultProxy, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"head and body")
    proxy.arm(Fault("drop_after", times=2))
    with (tmp_path / "file").open("rb") as file:
        file.seek(5)
        assert session.post(f"{proxy.url}/upload", data=file).status_code == 201
    assert [entry.body for entry in proxy.log] == [b"and body"] * 3


@pytest.mark.usefixtures("patience")
def test_what_is_streamed_is_left_to_be_read_by_who_has_asked(
    session: requests.Session, proxy: FaultProxy
) -> None:
    proxy.arm(Fault("status", status=503), Fault("partial", n=2))
    answer = session.post(f"{proxy.url}/download", data="x", stream=True)
    assert answer.status_code == 201
    with pytest.raises(requests.RequestException):
        _ = answer.content


def test_a_server_that_hangs_is_given_up_in_the_time_there_is(
    session: requests.Session, proxy: FaultProxy
) -> None:
    be_patient(proxy.url, Patience(0.3))
    proxy.arm(Fault("hang", times=None))
    with pytest.raises(Silence, match="timed out"):
        post(session, proxy)
    assert len(proxy.log) == 1


def test_a_server_without_a_certificate_is_asked_once(
    session: requests.Session, upstream: Upstream, clock: Clock
) -> None:
    url = upstream.url.replace("http", "https")
    be_patient(url, Patience(60, clock=clock))
    with pytest.raises(requests.exceptions.SSLError):
        session.get(url)
    assert clock.slept == []


def test_other_servers_are_asked_as_ever(
    session: requests.Session, proxy: FaultProxy, upstream: Upstream, clock: Clock
) -> None:
    be_patient("http://127.0.0.1:1", Patience(60, clock=clock))
    proxy.arm(Fault("status", status=503, times=None))
    assert post(session, proxy) == 503
    proxy.arm(Fault("drop_before", times=None))
    with pytest.raises(requests.ConnectionError):
        post(session, proxy)
    assert (len(proxy.log), clock.slept) == (1, [])


def test_a_server_is_known_by_its_host_and_port_whoever_asks(
    session: requests.Session, proxy: FaultProxy, clock: Clock
) -> None:
    url = proxy.url.replace("127.0.0.1", "LOCALHOST").replace("http://", "http://me:secret@")
    be_patient(f"{url}/prefix", Patience(60, clock=clock))
    proxy.arm(Fault("status", status=503))
    assert session.post(f"http://localhost:{proxy.url.rpartition(':')[2]}/runs").status_code == 201
    assert len(clock.slept) == 1


def test_every_session_of_mlflows_asks_patiently(proxy: FaultProxy, patience: Patience) -> None:
    hasten()
    hasten()
    for arguments in [(7, 2, 1.0, frozenset({500}), True, True), (1, 0, 0.5, (), False, False)]:
        session = request_utils._get_request_session(*arguments)
        assert request_utils._get_request_session(*arguments) is session
        proxy.arm(Fault("drop_before", times=3))
        assert session.post(f"{proxy.url}/x", data="x").status_code == 201
        adapter = session.get_adapter("https://")
        assert isinstance(adapter, PatientAdapter)
        assert isinstance(adapter.theirs, HTTPAdapter)


def test_who_opens_a_server_again_waits_for_it_as_long_as_it_says_then(proxy: FaultProxy) -> None:
    be_patient(proxy.url, Patience(600))  # of who has opened it before
    proxy.arm(Fault("hang", times=None))
    began = time.monotonic()
    with pytest.raises(TryLater, match="did not answer in the time it was given"):
        MlflowStore(proxy.url, patience=Patience(0.3))
    assert time.monotonic() - began < 5
