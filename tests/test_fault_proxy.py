"""Tests for fault_proxy.py, in front of a server that counts what it is asked."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from fault_proxy import AT_RANDOM, Action, Fault, FaultProxy

ANSWER = b"0123456789" * 1000


class Upstream(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Upstream

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append(f"{self.path} {body}")
        self.send_response(201)
        self.send_header("X-Echo", self.headers["X-Echo"] or "")
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Upstream]:
    server = Upstream()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


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
        yield session


def post(session: requests.Session, proxy: FaultProxy, body: str = "x") -> requests.Response:
    return session.post(f"{proxy.url}/runs", data=body, headers={"X-Echo": "hi"}, timeout=5)


def test_without_a_fault_request_and_answer_pass_unchanged(
    proxy: FaultProxy, upstream: Upstream, session: requests.Session
) -> None:
    answers = [post(session, proxy, body) for body in ("a", "b")]
    assert [(a.status_code, a.content, a.headers["X-Echo"]) for a in answers] == [
        (201, ANSWER, "hi")
    ] * 2
    assert upstream.asked == ["/runs a", "/runs b"]
    assert [(e.method, e.path, e.body, e.action, e.upstream_status) for e in proxy.log] == [
        ("POST", "/runs", b"a", None, 201),
        ("POST", "/runs", b"b", None, 201),
    ]


@pytest.mark.parametrize(
    ("action", "reached"), [("drop_before", 0), ("drop_after", 1), ("partial", 1)]
)
def test_a_connection_is_reset_before_or_after_the_server_has_done_it(
    proxy: FaultProxy, upstream: Upstream, session: requests.Session, action: Action, reached: int
) -> None:
    proxy.arm(Fault(action))
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        post(session, proxy)
    assert len(upstream.asked) == reached
    assert proxy.log[0].upstream_status == (201 if reached else None)
    assert post(session, proxy).status_code == 201


def test_a_partial_answer_begins_as_the_whole_one(
    proxy: FaultProxy, session: requests.Session
) -> None:
    proxy.arm(Fault("partial"))
    answer = session.post(f"{proxy.url}/runs", data="x", timeout=5, stream=True)
    assert answer.status_code == 201
    assert answer.headers["Content-Length"] == str(len(ANSWER))
    with pytest.raises(requests.exceptions.RequestException):
        assert not answer.content


@pytest.mark.parametrize(("action", "reached"), [("status", 0), ("status_after", 1)])
@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_a_status_is_answered_instead_of_the_servers_or_over_it(
    proxy: FaultProxy,
    upstream: Upstream,
    session: requests.Session,
    action: Action,
    status: int,
    reached: int,
) -> None:
    proxy.arm(Fault(action, status=status, retry_after="7"))
    answer = post(session, proxy)
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, "7")
    assert len(upstream.asked) == reached
    proxy.arm(Fault(action, status=status))
    assert "Retry-After" not in post(session, proxy).headers


def test_delay_waits_and_then_forwards(proxy: FaultProxy, session: requests.Session) -> None:
    proxy.arm(Fault("delay", seconds=0.2))
    started = time.monotonic()
    assert post(session, proxy).status_code == 201
    assert time.monotonic() - started >= 0.2


def test_hang_answers_nothing_and_holds_nobody_else_up(
    proxy: FaultProxy, upstream: Upstream, session: requests.Session
) -> None:
    proxy.arm(Fault("hang"))
    with pytest.raises(requests.ReadTimeout):
        session.post(f"{proxy.url}/runs", data="x", timeout=0.2)
    assert [entry.action for entry in proxy.log] == ["hang"]
    assert post(session, proxy).status_code == 201
    assert len(upstream.asked) == 1


def test_replay_delivers_twice_and_answers_once(
    proxy: FaultProxy, upstream: Upstream, session: requests.Session
) -> None:
    proxy.arm(Fault("replay"))
    assert post(session, proxy).content == ANSWER
    assert upstream.asked == ["/runs x"] * 2


def test_a_hook_is_called_before_the_server_is_asked(
    proxy: FaultProxy, upstream: Upstream, session: requests.Session
) -> None:
    proxy.arm(Fault("hook", n=2, hook=lambda: upstream.asked.append("hook")))
    post(session, proxy, "a")
    post(session, proxy, "b")
    assert upstream.asked == ["/runs a", "hook", "/runs b"]


def test_a_hook_that_fails_fails_the_test(upstream: Upstream, session: requests.Session) -> None:
    def broken() -> None:
        raise RuntimeError("the hook's own")

    with pytest.raises(RuntimeError, match="the hook's own"), FaultProxy(upstream.url) as proxy:
        proxy.arm(Fault("hook", hook=broken))
        assert post(session, proxy).status_code == 201


@pytest.mark.parametrize(
    ("fault", "hit"),
    [
        (Fault("status"), [0]),
        (Fault("status", n=3), [2]),
        (Fault("status", n=2, times=2), [1, 2]),
        (Fault("status", n=3, times=None), [2, 3, 4]),
        (Fault("status", match=r"POST /runs .*odd", n=2), [3]),
        (Fault("status", match="nowhere"), []),
    ],
)
def test_a_fault_hits_from_the_nth_matching_request_on(
    proxy: FaultProxy, session: requests.Session, fault: Fault, hit: list[int]
) -> None:
    for _ in range(2):  # `arm` begins anew
        proxy.arm(fault)
        bodies = ["even", "odd", "even", "odd", "even"]
        failed = [post(session, proxy, body).status_code == 500 for body in bodies]
        assert [i for i, it in enumerate(failed) if it] == hit
        assert [e.action for e in proxy.log] == ["status" if it else None for it in failed]


def test_each_fault_counts_all_requests_and_the_first_that_is_due_is_done(
    proxy: FaultProxy, session: requests.Session
) -> None:
    proxy.arm(Fault("status", status=503, n=2), Fault("status", status=429, n=2, times=2))
    assert [post(session, proxy).status_code for _ in range(4)] == [201, 503, 429, 201]


def test_of_many_requests_at_once_exactly_one_is_hit(proxy: FaultProxy) -> None:
    proxy.arm(Fault("status", n=11))

    def ask(_: int) -> int:
        with requests.Session() as session:
            session.trust_env = False
            return post(session, proxy).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(24)))
    assert sorted(statuses) == [201] * 23 + [500]
    assert len(proxy.log) == 24


def test_where_no_server_is_the_connection_is_reset(session: requests.Session) -> None:
    with serving() as server:
        gone = server.url
    with FaultProxy(gone) as proxy:
        with pytest.raises(requests.ConnectionError):
            post(session, proxy)
        assert proxy.log[0].upstream_status is None


@pytest.mark.parametrize(
    ("words", "law"),
    [
        ({"action": "explode"}, "The action is one of"),
        ({"action": "status", "n": 0}, "count from 1"),
        ({"action": "status", "times": 0}, "count from 1"),
        ({"action": "hook"}, "A hook is for"),
        ({"action": "status", "hook": print}, "A hook is for"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(words: dict[str, object], law: str) -> None:
    with pytest.raises(ValueError, match=law):
        Fault(**words)  # type: ignore[arg-type]


def test_faults_at_random_are_of_their_share_and_the_same_for_a_seed(
    proxy: FaultProxy, session: requests.Session
) -> None:
    told = []
    for seed in (1, 1, 2):
        proxy.arm(rate=0.3, seed=seed)
        told.append([fault.action if fault else None for fault in map(proxy.due, ["x"] * 1000)])
    assert told[0] == told[1] != told[2]
    assert set(told[0]) == {None, *AT_RANDOM}
    assert 250 < 1000 - told[0].count(None) < 350
    proxy.arm()
    assert post(session, proxy).status_code == 201


def test_what_hangs_is_let_go_when_the_proxy_is_armed_anew(
    proxy: FaultProxy, session: requests.Session
) -> None:
    proxy.arm(Fault("hang"))
    threading.Timer(0.2, proxy.arm).start()
    with pytest.raises(requests.ConnectionError):
        post(session, proxy)
    assert post(session, proxy).status_code == 201
