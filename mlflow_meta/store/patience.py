"""Patience: what is asked again of a server that does not answer, and for how long.

All requests of this process to a server that was opened with a `Patience` pass here, those of
MLflow's own client too. After a transient failure a request is sent again, since most may be
repeated; one that may not (it would make a second run) fails at once with `Unsure`, and who has
asked looks what has become of it.
"""

from __future__ import annotations

import copy
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,
    ContentDecodingError,
    RequestException,
    SSLError,
    Timeout,
)
from requests.utils import rewind_body
from urllib3 import Retry

PATIENCE_S = 600.0  # of waiting for a server that does not answer, by default
REQUEST_S = 60.0  # after which one request is taken for lost
SHORTEST_S = 0.05  # that a request gets
FIRST_WAIT_S = 0.1  # before the second attempt; doubled before each further one
LONGEST_WAIT_S = 5.0
LONGEST_RETRY_AFTER_S = 30.0  # however long a server or a gateway asks for
ATTEMPTS = 8  # where a failure may be for good: over some 10 s

BUSY = (408, 429, 502, 503, 504)  # asked again until the patience is at its end
# MLflow answers 400 BAD_REQUEST and 500 where its database is busy, and where a request is wrong.
_PUZZLING = ("BAD_REQUEST", "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", None)
_ONCE = ("/mlflow/runs/create", "/mlflow/model-versions/create")
_LOST = (ChunkedEncodingError, ConnectionError, ContentDecodingError, Timeout)

E = TypeVar("E", bound=BaseException)
T = TypeVar("T")


class Silence(RequestException):
    """The server has not answered for as long as it was waited for."""


class Unsure(RequestException):
    """A request that must not be repeated has failed: it may have been done or not."""

    @property
    def is_for_now(self) -> bool:
        """Whether that server may answer otherwise later; else it has said what it has to say."""
        return self.response is None or self.response.status_code in BUSY


class Patience:
    """Seconds that are waited for a server that does not answer.

    What was waited counts together, and is forgiven as fast as the server answers again.
    """

    def __init__(
        self, seconds: float = PATIENCE_S, *, until: float | None = None, clock: Any = time
    ) -> None:
        """Nothing was waited yet.

        Args:
            seconds: How long in all.
            until: And in no case beyond this time of `time.monotonic`.
            clock: What has `monotonic` and `sleep`.
        """
        self.seconds = seconds
        self.until = until
        self.clock = clock
        self._lock = threading.Lock()
        self._waited_s = 0.0
        self._answered_at = clock.monotonic()
        self._silent_since: float | None = None

    def left_s(self, since: float | None = None) -> float:
        """Seconds that may still be waited; of one request, first sent at `since`."""
        now = self.clock.monotonic()
        with self._lock:
            silent = 0.0 if self._silent_since is None else now - self._silent_since
            left = self.seconds - self._waited_s - silent
        if since is not None:
            left = min(left, self.seconds - (now - since))
        return left if self.until is None else min(left, self.until - now)

    def silent(self, since: float) -> None:
        """A request that was sent at `since` was not answered."""
        with self._lock:
            if self._silent_since is None:
                calm_s = max(0.0, since - self._answered_at)
                self._waited_s = max(0.0, self._waited_s - calm_s)
                self._silent_since = since

    def answered(self) -> None:
        """A request was answered."""
        with self._lock:
            if self._silent_since is not None:
                self._answered_at = self.clock.monotonic()
                self._waited_s += self._answered_at - self._silent_since
                self._silent_since = None


def waits() -> Iterator[float]:
    """Seconds to wait before the second attempt, the third, ...; about doubled each time."""
    wait = FIRST_WAIT_S
    while True:
        yield wait * random.uniform(0.5, 1.0)
        wait = min(2 * wait, LONGEST_WAIT_S)


_patience_with: dict[str, Patience] = {}  # by server, as `_server` has it


def be_patient(uri: str, patience: Patience) -> None:
    """Have this patience with the server at `uri` from now on, in all of this process."""
    _patience_with[_server(uri)] = patience


def be_impatient(uri: str) -> None:
    """Ask the server at `uri` once for each request again, as before anybody was patient."""
    _patience_with.pop(_server(uri), None)


def _server(uri: str) -> str:
    return urlsplit(uri).netloc.rpartition("@")[2].lower()


class PatientAdapter(BaseAdapter):
    """Sends again what has failed; to servers of whom nothing was told, as it was before."""

    def __init__(self, theirs: HTTPAdapter) -> None:
        """In the place of `theirs`, and by its connections."""
        super().__init__()
        self.theirs = theirs
        self._once = copy.copy(theirs)
        self._once.max_retries = Retry(0, read=False)
        # A copy of an adapter makes connections of its own, of urllib3's plain kind.
        self._once.poolmanager = theirs.poolmanager
        self._once.proxy_manager = theirs.proxy_manager

    def close(self) -> None:
        """Close the connections."""
        self.theirs.close()

    def send(  # type: ignore[override] # the caller names all of them
        self, request: PreparedRequest, stream: bool = False, timeout: Any = None, **kwargs: Any
    ) -> Response:
        """See `requests.adapters.HTTPAdapter.send`.

        Raises:
            Silence: If the patience is at its end.
            Unsure: If a request that must not be repeated was not answered.
        """
        patience = _patience_with.get(_server(request.url or ""))
        if patience is None:
            return self.theirs.send(request, stream=stream, timeout=timeout, **kwargs)
        first = patience.clock.monotonic()
        said = "no time was left"
        for attempt, wait in enumerate(waits(), start=1):
            sent, left = patience.clock.monotonic(), patience.left_s(first)
            if left <= 0:
                raise Silence(said, request=request)
            asked = timeout if isinstance(timeout, int | float) else REQUEST_S
            limit = max(SHORTEST_S, min(left, REQUEST_S, asked))
            answer, said = self._attempt(request, stream, limit, **kwargs)
            if answer is not None and _is_answer(answer, attempt):
                patience.answered()
                return answer
            patience.silent(sent)
            if urlsplit(request.url or "").path.endswith(_ONCE):
                raise Unsure(said, request=request, response=answer)
            left = max(0.0, patience.left_s(first))
            patience.clock.sleep(min(max(wait, _retry_after(answer)), left))
        raise AssertionError("`waits` has no end")

    def _attempt(
        self, request: PreparedRequest, stream: bool, limit_s: float, **kwargs: Any
    ) -> tuple[Response | None, str]:
        """The whole answer, if there is one; and what was said, or has happened."""
        if getattr(request, "_body_position", None) is not None:
            rewind_body(request)  # a file that was read before
        try:
            answer = self._once.send(request, stream=stream, timeout=limit_s, **kwargs)
            if not stream:
                answer.content  # noqa: B018 - half an answer fails here
        except SSLError:
            raise
        except _LOST as error:
            return None, " ".join(str(error).split())[:200]
        if stream:
            return answer, str(answer.status_code)
        return answer, f"{answer.status_code} {' '.join(answer.text.split())[:200]}"


def _is_answer(answer: Response, attempt: int) -> bool:
    if answer.status_code in BUSY:
        return False
    if answer.status_code not in (400, 500) or attempt >= ATTEMPTS:
        return True
    return answer.status_code == 400 and _error_code(answer) not in _PUZZLING


def _error_code(answer: Response) -> object:
    """What MLflow calls the error; None where it is not MLflow that has answered."""
    try:
        said = answer.json()
    except ValueError:
        return None
    return said.get("error_code") if isinstance(said, dict) else None


def _retry_after(answer: Response | None) -> float:
    text = answer.headers.get("Retry-After", "") if answer is not None else ""
    return min(float(text), LONGEST_RETRY_AFTER_S) if text.isdecimal() else 0.0


def cause(error: BaseException, kind: type[E]) -> E | None:
    """What of `kind` has led to an error; MLflow's client wraps what it gets."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, kind):
        found = found.__cause__ or found.__context__
    return found


def is_puzzling(error: Exception) -> bool:
    """Whether a failure may be one of the moment."""
    return not isinstance(error, MlflowException) or error.error_code in _PUZZLING


def patiently(request: Callable[[], T]) -> T:
    """The answer to a question that may be repeated, where a database or half an answer fails.

    Raises:
        MlflowException: What the last of `ATTEMPTS` has raised.
    """
    for attempt, wait in enumerate(waits(), start=1):
        try:
            return request()
        except (MlflowException, RequestException, ValueError, OSError) as error:
            if not is_puzzling(error) or attempt >= ATTEMPTS or cause(error, RequestException):
                raise
            time.sleep(wait)
    raise AssertionError("`waits` has no end")
