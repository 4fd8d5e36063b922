"""Up: from a run to what it comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlflow_meta.services.lineage.nodes import ABOVE, MAX_STEPS, Known, Node, Role
from mlflow_meta.store.lineage import Record


@dataclass(slots=True)
class Up:
    """The way back.

    Attributes:
        known: What is known of runs.
        seen: Ids of what stands in the tree already.
        n_updates: How many updates do.
    """

    known: Known
    seen: set[str]
    n_updates: int = 0

    def of(self, run: Record) -> list[Node]:
        """What a run comes from."""
        if run.kind == "suggest":
            return self._grounds((self.known.members(run.run_id) or [run])[0])
        if run.kind == "candidate":
            return self._learned(run.parent_run_id)
        if run.kind == "update":
            models = [v.name.rpartition("/")[0] for v in self.known.versions_of(run)]
            before = [f"{model}/{run.updated_from}" for model in models]
            return [*self._harvest(run), *(n for name in before for n in self._version(name))]
        if run.kind == "train":
            return self._harvest(run)
        if run.rank:
            members = self.known.members(run.batch_id) or [run]
            batch = self.known.batch_node(members, self._grounds(run))
            return [batch, *self._nearest(run), *self._earlier(run)]
        return []

    def _grounds(self, run: Record) -> list[Node]:
        """What the batch of a run rests on."""
        version = self.known.version(run.version)
        training = self.known.run(version.run_id) if version else None
        nodes = self._version(run.version) if run.version else []
        if training is not None and training.harvest_run_id == run.harvest_run_id:
            return nodes
        why = "its newer runs have updated the model in memory" if training else ""
        return [*nodes, *self._harvest(run, why)]

    def _version(self, name: str) -> list[Node]:
        if name in self.seen:
            return [self.known.version_node(name, ABOVE)]
        self.seen.add(name)
        found = self.known.version(name)
        if found is None:
            return [self.known.version_node(name, "is gone")]
        said = ", ".join(found.aliases)
        return [self.known.version_node(name, said, self._learned(found.run_id))]

    def _learned(self, run_id: str) -> list[Node]:
        """The training or update of an id."""
        run = self.known.run(run_id)
        if run is None:
            return []
        if run.kind == "update":
            self.n_updates += 1
            if self.n_updates > MAX_STEPS:
                more = f"go on with `mlflow-meta lineage {run.run_id}`"
                return [replace(self.known.node(run), said=more)]
        return [self.known.node(run, children=self.of(run))]

    def _harvest(self, run: Record, why: str = "") -> list[Node]:
        harvest = self.known.run(run.harvest_run_id)
        if harvest is None:
            return []
        node = self.known.node(harvest, Role.HARVEST)
        return [replace(node, said=f"{node.said}; {why}") if why else node]

    def _nearest(self, run: Record) -> list[Node]:
        near = self.known.run(run.nearest_run_id)
        if near is None:
            return []
        node = self.known.node(near, Role.NEAREST)
        metric = "".join(run.spellings[:1])
        return [replace(node, metric=metric, value=near.got(run.spellings))]

    def _earlier(self, run: Record) -> list[Node]:
        nodes: list[Node] = []
        before = self.known.run(run.previous_run_id)
        while before is not None and before.run_id not in self.seen and len(nodes) < MAX_STEPS:
            self.seen.add(before.run_id)
            nodes.append(self.known.node(before, Role.EARLIER))
            before = self.known.run(before.previous_run_id)
        return nodes
