"""Down: from a run to what has come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from mlflow_meta.services.lineage.nodes import ABOVE, MAX_STEPS, Known, Node, Role
from mlflow_meta.store.lineage import Record
from mlflow_meta.store.versions import Version


@dataclass(slots=True)
class Down:
    """The way on.

    Attributes:
        known: What is known of runs.
        seen: Ids of what stands in the tree already.
    """

    known: Known
    seen: set[str]

    def of(self, run: Record) -> list[Node]:
        """What has come of a run."""
        if run.kind == "harvest":
            return self._of_harvest(run)
        if run.kind in ("train", "update"):
            return [self._version(version, 0) for version in self.known.versions_of(run)]
        if run.kind == "suggest":
            return [self.known.node(member) for member in self.known.members(run.run_id)]
        if run.kind:
            return []
        found = self.known.containing(run)
        harvests = [self._once(self.known.node(h), partial(self._of_harvest, h)) for h in found]
        return [*self._later(run), *harvests]

    def _once(self, node: Node, children: Callable[[], Iterable[Node]]) -> Node:
        """A node with its children, or without if it stands in the tree already."""
        if node.id in self.seen:
            return replace(node, said=ABOVE)
        self.seen.add(node.id)
        return replace(node, children=tuple(children()))

    def _of_harvest(self, harvest: Record) -> list[Node]:
        of = self.known.records
        learned = [run for run in of.trainings if run.harvest_run_id == harvest.run_id]
        nodes = [self._learned(run, 0) for run in learned]
        # Those that a version of these has suggested hang from it.
        theirs = {v.name for run in learned for v in self.known.versions_of(run)}
        direct = [run for run in of.suggested if run.harvest_run_id == harvest.run_id]
        nodes += self._batches(
            (run for run in direct if run.version and run.version not in theirs),
            "it has updated the model in memory",
        )
        return nodes + self._batches((run for run in direct if not run.version), "without a model")

    def _learned(self, run: Record, n_updates: int) -> Node:
        if n_updates > MAX_STEPS:
            more = f"go on with `mlflow-meta lineage {run.run_id}`"
            return replace(self.known.node(run), said=more)
        return self._once(
            self.known.node(run),
            lambda: [self._version(v, n_updates) for v in self.known.versions_of(run)],
        )

    def _version(self, version: Version, n_updates: int) -> Node:
        of = self.known.records
        model, _, number = version.name.rpartition("/")

        def children() -> list[Node]:
            suggested = self._batches(run for run in of.suggested if run.version == version.name)
            updates = [
                run
                for run in of.trainings
                if run.updated_from == number
                and any(v.name.rpartition("/")[0] == model for v in self.known.versions_of(run))
            ]
            return [*suggested, *(self._learned(run, n_updates + 1) for run in updates)]

        return self._once(
            self.known.version_node(version.name, ", ".join(version.aliases)), children
        )

    def _batches(self, suggested: Iterable[Record], how: str = "") -> list[Node]:
        """The batches of some suggested runs, and how they were made."""
        nodes = []
        for batch_id in dict.fromkeys(run.batch_id for run in suggested):
            members = self.known.members(batch_id)
            runs = partial(map, self.known.node, members)
            node = self.known.batch_node(members, ())
            node = replace(node, said=f"{node.said}; {how}") if how else node
            nodes.append(self._once(node, runs))
        return nodes

    def _later(self, run: Record) -> list[Node]:
        nodes: list[Node] = []
        by_previous = {later.previous_run_id: later for later in self.known.records.suggested}
        later = by_previous.get(run.run_id)
        while later is not None and later.run_id not in self.seen and len(nodes) < MAX_STEPS:
            self.seen.add(later.run_id)
            nodes.append(self.known.node(later, Role.LATER))
            later = by_previous.get(later.run_id)
        return nodes
