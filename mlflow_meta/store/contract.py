"""What the write-back protocol asks of a tracking store, and what it may rely on.

Ownership. A run belongs to the process that has created it until it is SCHEDULED; from then on to
nobody, and from its claim on to the worker whose claim it holds, until it has ended. Runs of others
are never changed, but for what `watch` writes into those that train: tags and metrics that begin
with `mlflow_meta.` and, where it is told to, the status KILLED. Nothing is ever deleted.

Atomicity. `create_run` makes a run with its tags or none. `log_once` and `experiment_once` are
compare-and-set: of several values, in whatever order they come, one stands for ever, and all are
told which. Nothing else is: `log_batch` may write a part, and of two `set_status` the last one
stands.

Repetition. Every call may be repeated with the same arguments after it has failed, by anybody;
`create_run` then makes a second run, and is never repeated by a store of its own accord.

Failure. A call that raises may have been done or not. It raises `StoreRefused` where the store has
said no, and `TryLater` where it has not answered in the time that it was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

RunStatus = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
ENDED: tuple[RunStatus, ...] = ("FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A run, as it was when it was read.

    Attributes:
        run_id: The run.
        experiment_id: Its experiment.
        name: Its name, or its id where it has none.
        status: One of MLflow's.
        start_ms: When it was created, in milliseconds since 1970.
        params: Name -> text.
        metrics: Name -> last value.
        tags: Name -> text.
    """

    run_id: str
    experiment_id: str
    name: str
    status: str
    start_ms: int
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class Store(Protocol):
    """Runs of a tracking server; `testing.check_store` checks what is promised here."""

    uri: str
    """The store's address, as programs are told it."""

    def experiment_id(self, name: str) -> str:
        """The id of the active experiment of this name.

        Raises:
            NothingToLearn: If there is none.
        """

    def check_may_edit(self, experiment_name: str) -> None:
        """See whether the user may write to an experiment, and write nothing.

        Our own experiment may be missing: it is made when it is needed.

        Raises:
            NothingToLearn: If there is none.
            NoPermission: If not; says what to ask the administrator for.
        """

    def own_experiment_id(self) -> str:
        """The id of the project's own experiment; makes it where there is none."""

    def experiment_once(self, name: str, tags: Mapping[str, str]) -> Mapping[str, str]:
        """The tags of the only experiment that ever has this name.

        Where there is none it is made with `tags`, unless these are empty.
        """

    def create_run(
        self, experiment_id: str, name: str, tags: Mapping[str, str], *, start_ms: int | None = None
    ) -> str:
        """A new RUNNING run, that began now or at `start_ms`; its id."""

    def log_once(self, run_id: str, key: str, value: str) -> str:
        """Set a param that nobody has set before; the value that stands, ours or another's."""

    def log_batch(
        self,
        run_id: str,
        *,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        at_ms: int | None = None,
    ) -> None:
        """Write to a run, any number of each; the time of the metrics is `at_ms`, or now.

        Raises:
            StoreRefused: If a param has another value already.
        """

    def set_status(self, run_id: str, status: RunStatus) -> None:
        """Change a run's status; one of `ENDED` says that it ended now."""

    def get_run(self, run_id: str) -> Record:
        """A run as it is now.

        Raises:
            StoreRefused: If there is none.
        """

    def search_runs(
        self, experiment_id: str, *, status: RunStatus | None = None, **tags: str | None
    ) -> list[Record]:
        """The active runs of an experiment, the oldest first.

        Args:
            experiment_id: Whose.
            status: Only those of this status.
            tags: Only those with these tags of ours, spelt without `mlflow_meta.`; None for any
                value. Values are of letters, digits, `-`, `_`, `.`, `:` and `/`.
        """

    def log_files(self, run_id: str, files: Mapping[str, bytes], folder: str | None = None) -> None:
        """Write artifacts, as file name -> content."""

    def file(self, run_id: str, path: str) -> bytes:
        """The content of an artifact.

        Raises:
            StoreRefused: If there is none.
        """
