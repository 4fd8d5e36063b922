"""The nodes of a lineage, and what is known of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from mlflow_meta import shown
from mlflow_meta.errors import StoreRefused
from mlflow_meta.store import MlflowStore, versions
from mlflow_meta.store import lineage as reading
from mlflow_meta.store.lineage import Record, Records, Sources
from mlflow_meta.store.versions import Version

MAX_STEPS = 5  # updates, or attempts, that are followed one after another
MAX_NAMED = 6  # experiments of a harvest that are named
ABOVE = "see above"  # of what stands in the tree already


class Role(Enum):
    """What a node is to the one that it hangs from."""

    RUN = "run"
    SUGGESTED = "suggested run"
    NEAREST = "nearest run"
    EARLIER = "earlier attempt"
    LATER = "later attempt"
    BATCH = "batch"
    VERSION = "model version"
    TRAINING = "training"
    UPDATE = "update"
    CANDIDATE = "candidate"
    HARVEST = "harvest"
    OTHER = "run of mlflow-meta"


_ROLES = {
    "harvest": Role.HARVEST,
    "train": Role.TRAINING,
    "update": Role.UPDATE,
    "candidate": Role.CANDIDATE,
    "suggest": Role.BATCH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A run, a model version or a batch in a lineage.

    Attributes:
        role: What it is to the node above.
        id: Run id; name and number of a model version, with a slash between; of a batch its run's
            id.
        address: Of its page in MLflow's UI, from the server's root; empty where it has none.
        name: The run's name.
        status: The run's status.
        metric: What a suggested run was to improve.
        value: What the run got of it; nan where that is nothing yet.
        said: What else is to be known, in words.
        children: The next ones on the way.
    """

    role: Role
    id: str
    address: str = ""
    name: str = ""
    status: str = ""
    metric: str = ""
    value: float = math.nan
    said: str = ""
    children: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a run comes from, and where it has led.

    Attributes:
        run: The run, alone.
        up: What it comes from.
        down: What has come of it.
        remarks: What was not looked at, or is gone, as sentences.
    """

    run: Node
    up: tuple[Node, ...]
    down: tuple[Node, ...]
    remarks: tuple[str, ...]


@dataclass(slots=True)
class Known:
    """What was read by now; more of it is read where it is asked for."""

    store: MlflowStore
    records: Records
    progress: Callable[[str], None]
    remarks: list[str] = field(default_factory=list)
    _found: dict[str, Record | None] = field(default_factory=dict)
    _opened: dict[str, Sources | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        of = self.records
        for read in (of.harvests, of.trainings, of.batches, of.suggested):
            self._found |= {record.run_id: record for record in read}

    def run(self, run_id: str) -> Record | None:
        """The run that another names; None if it names none or, with a remark, if it is gone."""
        if run_id and run_id not in self._found:
            try:
                self._found[run_id] = reading.find(self.store, run_id)
            except StoreRefused:
                self._found[run_id] = None
                self.remarks.append(f"The run {run_id} is gone.")
        return self._found.get(run_id)

    def version(self, name: str) -> Version | None:
        """The version that a run names; None if it names none or, with a remark, if it is gone."""
        read = (version for version in self.records.versions if version.name == name)
        found = next(read, None) or (versions.version(self.store, name) if name else None)
        if name and found is None:
            self.remarks.append(f"The model version {name} is gone.")
        return found

    def versions_of(self, run: Record) -> list[Version]:
        """The versions that a training has made."""
        return [version for version in self.records.versions if version.run_id == run.run_id]

    def sources(self, harvest_run_id: str) -> Sources | None:
        """The runs that a harvest has read; None, with a remark, if it can't be opened."""
        if harvest_run_id not in self._opened:
            self.progress(f"opening the harvest {harvest_run_id}")
            self._opened[harvest_run_id] = reading.sources(self.store, harvest_run_id)
            if self._opened[harvest_run_id] is None:
                self.remarks.append(f"The harvest {harvest_run_id} can't be opened any more.")
        return self._opened[harvest_run_id]

    def containing(self, run: Record) -> list[Record]:
        """The harvests that have a run among their trials; a remark says why none has."""
        if run.status in ("SCHEDULED", "RUNNING"):
            return []
        opened = [(h, self.sources(h.run_id)) for h in self.records.harvests]
        readable = [(harvest, sources) for harvest, sources in opened if sources is not None]
        found = [harvest for harvest, sources in readable if run.run_id in sources.experiments]
        if not found:
            why = "nothing was harvested yet"
            if readable:
                newest, sources = readable[0]
                reason = sources.left_out.get(run.run_id)
                left_out = f"left it out: {reason}" if reason else "has not read it"
                why = f"the newest harvest, {newest.run_id}, {left_out}"
            self.remarks.append(f"No harvest has {run.run_id} among its trials; {why}.")
        return found

    def members(self, batch_id: str) -> list[Record]:
        """The runs of a batch, the best rank first."""
        found = [run for run in self.records.suggested if run.batch_id == batch_id]
        return sorted(found, key=lambda run: (len(run.rank), run.rank, run.created_ms))

    # As nodes

    def node(self, run: Record, role: Role | None = None, children: Iterable[Node] = ()) -> Node:
        """A run; of the role that it has by itself where none is given."""
        usual = Role.SUGGESTED if run.rank else Role.OTHER if run.kind else Role.RUN
        role = role or _ROLES.get(run.kind, usual)
        return Node(
            role=role,
            id=run.run_id,
            address=f"/#/experiments/{run.experiment_id}/runs/{run.run_id}",
            name=run.name,
            status=run.status,
            metric="".join(run.spellings[:1]),
            value=run.got(run.spellings),
            said=self._said(run, role),
            children=tuple(children),
        )

    def version_node(self, name: str, said: str, children: Iterable[Node] = ()) -> Node:
        """A model version."""
        model, _, number = name.rpartition("/")
        return Node(
            role=Role.VERSION,
            id=name,
            address=f"/#/models/{model}/versions/{number}",
            said=said,
            children=tuple(children),
        )

    def batch_node(self, members: Sequence[Record], children: Iterable[Node]) -> Node:
        """A batch: its run."""
        own = self.run(members[0].suggest_run_id)
        if own is not None:
            return self.node(own, Role.BATCH, children)
        return Node(
            role=Role.BATCH,
            id=members[0].batch_id,
            said=_became(members),
            children=tuple(children),
        )

    def _said(self, run: Record, role: Role) -> str:
        if role is Role.HARVEST:
            sources = self.sources(run.run_id)
            return _counted(sources.experiments.values()) if sources else "can't be opened"
        if role is Role.BATCH:
            return _became(self.members(run.run_id))
        if run.kind:
            return ""
        predicted = (
            "" if math.isnan(run.predicted) else f", predicted {shown.number(run.predicted)}"
        )
        attempt = f", attempt {run.attempt}" if run.attempt not in ("", "1") else ""
        return f"in {run.experiment}{predicted}{attempt}"


def _became(members: Sequence[Record]) -> str:
    """What has become of a batch's runs."""
    states = Counter(run.status for run in members).most_common()
    return ": ".join(
        [
            _counted(run.experiment for run in members),
            *([", ".join(f"{n} {status}" for status, n in states)] if states else []),
        ]
    )


def _counted(experiments: Iterable[str]) -> str:
    """How many runs there are, and in which experiments."""
    counts = Counter(experiments)
    n = sum(counts.values())
    if len(counts) == 1:
        return f"{n} run{'' if n == 1 else 's'} of {next(iter(counts))}"
    named = [f"{name} ({m})" for name, m in counts.most_common(MAX_NAMED)]
    named += [f"{len(counts) - MAX_NAMED} more"] if len(counts) > MAX_NAMED else []
    return f"{n} runs{' of ' if n else ''}{', '.join(named)}"
