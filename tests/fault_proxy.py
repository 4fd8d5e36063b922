"""A reverse proxy that does harm at requests told beforehand: in every run of a test the same.

`proxy.arm(Fault("drop_after", match="runs/search", n=2), Fault("status", status=503, n=5))`
"""

from __future__ import annotations

import http.client
import os
import random
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

UPSTREAM_S = 120.0
OF_ONE_HOP = ("connection", "content-length", "host", "keep-alive", "transfer-encoding")

Action = Literal[
    "drop_before",  # reset the connection; the server never sees the request
    "drop_after",  # let the server do it, then reset: the client never sees the answer
    "partial",  # the answer's head and half of its body, then reset
    "status",  # answer `status`; the server never sees the request
    "status_after",  # let the server do it, then answer `status`, as a gateway's time-out does
    "delay",  # wait `seconds`, then forward
    "hang",  # no answer until the next `arm`, or while the proxy is open
    "replay",  # forward twice; the second answer is the client's
    "hook",  # call `hook`, then forward
]
TIMES_FORWARDED: dict[Action | None, int] = {"drop_before": 0, "status": 0, "hang": 0, "replay": 2}
Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Fault:
    """What to do at the n-th to (n + times - 1)-th request that matches.

    Attributes:
        match: A pattern to be found in `METHOD /path?query body`.
        n: Counts from 1, and from the call of `arm` on.
        times: At how many matching requests, one after the other; None: at all from the n-th on.
        status: What `status` and `status_after` answer.
        retry_after: Their header of that name; None: none.
        content: The body of what they answer.
        seconds: How long to wait first; all that `delay` does.
        hook: What `hook` calls, in the proxy's thread. It must not go through the proxy.
    """

    action: Action
    match: str = ""
    n: int = 1
    times: int | None = 1
    status: int = 500
    retry_after: str | None = None
    content: bytes = b"injected"
    seconds: float = 0.0
    hook: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        if self.action not in get_args(Action):
            raise ValueError(f"The action is one of {get_args(Action)}, not {self.action!r}")
        if self.n < 1 or (self.times is not None and self.times < 1):
            raise ValueError(f"n and times count from 1, not {self.n} and {self.times}")
        if (self.hook is not None) != (self.action == "hook"):
            raise ValueError(f"A hook is for the action 'hook' alone, not {self.action!r}")


AT_RANDOM: dict[Action, int] = {  # how often, next to each other; a hang takes a client's minute
    "drop_before": 10, "drop_after": 10, "partial": 10, "status": 10, "status_after": 10,
    "delay": 10, "replay": 10, "hang": 1,
}  # fmt: skip


def random_fault(rng: random.Random) -> Fault:
    (action,) = rng.choices(list(AT_RANDOM), list(AT_RANDOM.values()))
    status = rng.choice((502, 503, 504) if action == "status_after" else (429, 500, 502, 503))
    seconds = rng.uniform(0.0, 2.0) if action == "delay" else 0.0
    return Fault(action, status=status, retry_after=rng.choice((None, "1")), seconds=seconds)


@dataclass(frozen=True, slots=True)
class Entry:
    """A request that came; `upstream_status` is None where the server has not answered it."""

    method: str
    path: str
    body: bytes
    action: Action | None
    upstream_status: int | None


class FaultProxy:
    """The proxy of one server, while the context lasts; `log` has the requests since `arm`.

    With a `token`, it answers 401 to who does not bring that; with `tls`, it speaks TLS.
    """

    def __init__(
        self, upstream: str, *, token: str | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.token = token
        self.log: list[Entry] = []
        self.closed = threading.Event()
        self.armed_anew = threading.Event()
        self._broken_hooks: list[Exception] = []
        self._upstream = urlsplit(upstream).netloc
        self._faults: tuple[Fault, ...] = ()
        self._seen: list[int] = []
        self._rate, self._rng = 0.0, random.Random()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        if tls is not None:  # shaken hands on in the request's own thread
            listening = self._server.socket
            self._server.socket = tls.wrap_socket(
                listening, server_side=True, do_handshake_on_connect=False
            )
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"

    def arm(self, *faults: Fault, rate: float = 0.0, seed: int = 0) -> None:
        """These faults instead of the former ones. All counts begin anew, and the log is empty.

        Args:
            faults: The first that is for a request is done to it.
            rate: At this share of all other requests one of any kind but a hook, at random.
            seed: Which, in the order in which requests come.
        """
        with self._lock:
            self._faults, self._seen, self.log = faults, [0] * len(faults), []
            self._rate, self._rng = rate, random.Random(seed)
            before, self.armed_anew = self.armed_anew, threading.Event()
        before.set()

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self.closed.set()
        self.armed_anew.set()
        self._server.shutdown()
        self._server.server_close()
        if self._broken_hooks and error is None:
            raise self._broken_hooks[0]

    def due(self, line: str) -> Fault | None:
        """The first fault that is for this request. Each counts all requests that match it."""
        due = []
        with self._lock:
            for i, fault in enumerate(self._faults):
                self._seen[i] += bool(matches := re.search(fault.match, line))
                after = self._seen[i] - fault.n
                if matches and after >= 0 and (fault.times is None or after < fault.times):
                    due.append(fault)
            if not due and self._rate and self._rng.random() < self._rate:
                due.append(random_fault(self._rng))
        return due[0] if due else None

    def before(self, fault: Fault) -> None:
        """What is done before the server is asked."""
        self.closed.wait(fault.seconds)
        try:
            if fault.hook is not None:
                fault.hook()
        except Exception as error:  # the test's own: raised where the context ends
            self._broken_hooks.append(error)

    def forward(
        self, method: str, path: str, headers: Headers, body: bytes
    ) -> tuple[int, Headers, bytes] | None:
        """The server's answer, over a connection of its own; None if the server is gone."""
        connection = http.client.HTTPConnection(self._upstream, timeout=UPSTREAM_S)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, _to_pass(answer.headers), answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that give up are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer's body would wait 40 ms for what says its head came
    proxy: FaultProxy

    def _serve(self) -> None:
        body = self._body()
        armed_anew = self.proxy.armed_anew
        token = self.proxy.token
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            self._send((401, {}, b"Who are you?"), half=False)
            return
        fault = self.proxy.due(f"{self.command} {self.path} {body.decode(errors='replace')}")
        action = fault.action if fault else None
        if fault:
            self.proxy.before(fault)
        answer = None
        for _ in range(TIMES_FORWARDED.get(action, 1)):
            answer = self.proxy.forward(self.command, self.path, _to_pass(self.headers), body)
        entry = Entry(self.command, self.path, body, action, answer[0] if answer else None)
        self.proxy.log.append(entry)
        if action == "hang":
            armed_anew.wait()
        if fault and action in ("status", "status_after"):
            retry = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            answer = fault.status, retry, fault.content
        if answer and action != "drop_after":
            self._send(answer, half=action == "partial")
        if not answer or action in ("drop_after", "partial"):
            self._reset()

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":  # as an empty file is sent
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, answer: tuple[int, Headers, bytes], *, half: bool) -> None:
        status, headers, content = answer
        self.send_response_only(status)  # the other `send_response` writes to stderr
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if half else content)

    def _reset(self) -> None:
        """Close by RST instead of FIN, so that no client takes it for the end of an answer."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        self.close_connection = True


def _to_pass(headers: Any) -> Headers:
    return {name: value for name, value in headers.items() if name.lower() not in OF_ONE_HOP}
