"""A state machine of the whole loop, and its sequences played again on another store."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from world import World

from mlflow_meta.store import names
from mlflow_meta.store.contract import Store
from mlflow_meta.store.publish import DISCARDED
from mlflow_meta.testing import InMemoryStore

Step = tuple[str, int, dict[str, Any]]
"""What is done, by whom, and at which of its requests it fails."""
End = tuple[str, str, str, str, str]
"""Of a run: its suggestion and attempt, its status, how it says that it ended, and its params."""


class Loop(RuleBasedStateMachine):
    """The whole loop, in any order, with deaths anywhere.

    Attributes:
        played: What was done in each run of the machine.
    """

    played: ClassVar[list[list[Step]]] = []

    faults = st.one_of(
        st.just({}),
        st.fixed_dictionaries(
            {"n": st.integers(1, 30), "after": st.booleans(), "dies": st.booleans()}
        ),
    )
    who = st.integers(0, 3)

    @initialize(which=st.integers(0, 2), fault=faults)
    def begin(self, which: int, fault: dict[str, Any]) -> None:
        self.world = World(InMemoryStore("sweep"))
        self.steps: list[Step] = []
        self.do("suggests", which, fault)

    def do(self, what: str, who: int, fault: dict[str, Any]) -> None:
        self.steps.append((what, who, fault))
        self.world.step(what, who, **fault)

    @rule(which=st.integers(0, 2), fault=faults)
    def suggests(self, which: int, fault: dict[str, Any]) -> None:
        self.do("suggests", which, fault)

    @rule(who=who, fault=faults)
    def takes(self, who: int, fault: dict[str, Any]) -> None:
        self.do("takes", who, fault)

    @rule(who=who, fault=faults)
    def ends(self, who: int, fault: dict[str, Any]) -> None:
        self.do("ends", who, fault)

    @rule(who=who, fault=faults)
    def hands_back(self, who: int, fault: dict[str, Any]) -> None:
        self.do("hands_back", who, fault)

    @rule(who=who, fault=faults)
    def beats(self, who: int, fault: dict[str, Any]) -> None:
        self.do("beats", who, fault)

    @rule(who=who)
    def is_stopped(self, who: int) -> None:
        self.do("is_stopped", who, {})

    @rule(fault=faults)
    def wakes(self, fault: dict[str, Any]) -> None:
        self.do("wakes", 0, fault)

    @rule(fault=faults)
    def reaps(self, fault: dict[str, Any]) -> None:
        self.do("reaps", 0, fault)

    @rule()
    def rejects(self) -> None:
        self.do("rejects", 0, {})

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check_always()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.played.append(self.steps)
            self.world.settle()
            self.world.check()


def play(store: Store, experiment: str, steps: list[Step]) -> list[End]:
    """Do these steps, and then whatever is left to do; how each run has ended."""
    world = World(store, experiment)
    for what, who, fault in steps:
        world.step(what, who, **fault)
        world.check_always()
    world.settle()
    world.check()
    return sorted(
        (
            record.tags[names.SUGGESTION],
            record.tags[names.KEY],
            record.status,
            record.params.get(names.ENDED, "").partition(" ")[0],
            str(sorted((k, v) for k, v in record.params.items() if k not in _OF_ONE_STORE)),
        )
        for record in store.search_runs(world.experiment_id, key=None)
        if record.params.get(names.CLAIM) != DISCARDED
    )


_OF_ONE_STORE = {names.CLAIM, names.ENDED}
"""Params that hold a random token."""
