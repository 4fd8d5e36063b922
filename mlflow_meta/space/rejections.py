"""What people decide about suggested runs, and what their reasons leave of the search space.

A person sets tags in MLflow's UI: `mlflow_meta.decision` = `approve` or `reject`, and says why in
`mlflow_meta.reason`, or in the same tag behind a colon (`reject: batch_size<=64`). A reason is

    conditions, with `;`, ` and ` or a line break between
    NAME=VALUES, NAME!=VALUES, NAME<X, NAME<=X, NAME>X, NAME>=X    what is wanted from now on, as
                                                                   `narrow.narrowed` has it
    NAME                                                           not with this run's value again

and anything else is a text for people, which constrains nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

from mlflow_meta.errors import BadSpace
from mlflow_meta.space.narrow import Condition, asked, left_of, reachable
from mlflow_meta.space.params import Categorical, Param
from mlflow_meta.space.parts import described, hint, texts
from mlflow_meta.space.search_space import SearchSpace

DECISION = "mlflow_meta.decision"
REASON = "mlflow_meta.reason"
MAX_SHOWN = 80  # characters of a person's text in a remark

_APPROVED = frozenset({"approve", "approved", "accept", "accepted", "yes", "ok"})
_REJECTED = frozenset({"reject", "rejected", "decline", "declined", "no"})
_BETWEEN = re.compile(r"[;\n\r]|\s+and\s+", re.IGNORECASE)  # of two conditions


class Verdict(Enum):
    """What a person has decided."""

    APPROVED = "approved"
    REJECTED = "rejected"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person has decided about a run.

    Attributes:
        verdict: What.
        reason: Why, in the person's own words; empty where they say nothing.
        remark: Why it can't be read, where it can't; the verdict is then `NONE`.
    """

    verdict: Verdict
    reason: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A run that a person does not want to be trained.

    Attributes:
        run: Its name or id, as remarks are to call it.
        config: Its params, as the texts that MLflow keeps.
        reason: Why, in the person's own words.
    """

    run: str
    config: Mapping[str, str]
    reason: str


def decision_of(tags: Mapping[str, str]) -> Decision:
    """What a person has decided about a run with these tags.

    Upper and lower case are one, and space, quotes and a full stop around the word are ignored:
    `approve`, `approved`, `accept`, `accepted`, `yes`, `ok`; `reject`, `rejected`, `decline`,
    `declined`, `no`. A word that is none of these decides nothing, and the remark says so.

    Example:
        >>> decision_of({"mlflow_meta.decision": "Rejected: lr<0.1"}).reason
        'lr<0.1'
    """
    said, _, behind = tags.get(DECISION, "").partition(":")
    word = said.strip(" \t\r\n.!\"'`").casefold()
    reasons = [text.strip() for text in (behind, tags.get(REASON, "")) if text.strip()]
    reason = "\n".join(dict.fromkeys(reasons))
    if word in _APPROVED:
        return Decision(verdict=Verdict.APPROVED, reason=reason)
    if word in _REJECTED:
        return Decision(verdict=Verdict.REJECTED, reason=reason)
    remark = ""
    if word:
        remark = (
            f"The tag {DECISION} says {_shown(said)!r}, which decides nothing: write approve or "
            "reject, and a reason behind a colon."
        )
    elif reasons:
        remark = (
            f"There is a reason, but the tag {DECISION} decides nothing: write approve or reject."
        )
    return Decision(verdict=Verdict.NONE, reason=reason, remark=remark)


def constrained(
    space: SearchSpace, rejections: Sequence[Rejection]
) -> tuple[SearchSpace, tuple[str, ...]]:
    """The part of a space that the reasons for rejections leave.

    Each condition holds where its param exists. All add up; where two exclude each other, that of
    the newer rejection holds, and of one rejection the first.

    Args:
        space: The whole.
        rejections: The oldest first.

    Returns:
        The part, in which all conditions hold but those that a remark tells of; and the remarks,
        as sentences, those on the newest rejection first.

    Example:
        >>> lr = {"type": "float", "low": 1e-4, "high": 1.0, "log": True}
        >>> no = Rejection(run="suggested 1", config={"lr": "0.5"}, reason="lr<=0.1")
        >>> constrained(SearchSpace.from_dict({"lr": lr}), [no])[0].params["lr"].high
        0.1
    """
    part = _Part(space, dict(space.params))
    for rejection in reversed(rejections):
        free = []
        for piece in filter(None, (piece.strip() for piece in _BETWEEN.split(rejection.reason))):
            if piece in space.names or piece in rejection.config:
                part.exclude(piece, rejection)
            else:
                try:
                    part.narrow(asked(piece), rejection)
                except ValueError:
                    free.append(piece)
        if free:
            part.say(
                rejection,
                f"was rejected since {_shown('; '.join(free))!r}, which constrains nothing. What "
                f"the next search keeps to is such as {_examples(space, rejection.config)}.",
            )
    return space.part(reachable(part.params)), tuple(part.remarks)


@dataclass(slots=True)
class _Part:
    """What is left of a space while rejections are read, the newest first."""

    space: SearchSpace
    params: dict[str, Param]
    remarks: list[str] = field(default_factory=list)
    held: dict[str, list[str]] = field(default_factory=dict)  # param -> what it is held to

    def say(self, rejection: Rejection, words: str) -> None:
        """Remark on a rejection."""
        self.remarks.append(_plain(f"{_shown(rejection.run)} {words}"))

    def exclude(self, name: str, rejection: Rejection) -> None:
        """Leave out a run's value of a param, where values can be left out one by one."""
        if not self._has(name, rejection):
            return
        whole, value = self.space.params[name], rejection.config.get(name)
        if value is None:
            self.say(rejection, f"was rejected for its {name}, but it has none.")
        elif not isinstance(whole, Categorical):
            number = _shown(value)
            self.say(
                rejection,
                f"was rejected for its {name}, which says no direction: write {name}<{number} or "
                f"{name}>{number} for what is wanted.",
            )
        elif (choice := whole.parse(value)) is not None:  # else it is searched no more
            self.narrow(Condition(name, "!=", str(choice)), rejection)

    def narrow(self, condition: Condition, rejection: Rejection) -> None:
        """Let a condition hold too, if it can."""
        name = condition.name
        if not self._has(name, rejection):
            return
        try:
            left = left_of(self.params[name], condition, self.space.params[name])
        except BadSpace as error:
            self.say(rejection, f"has a reason that can't hold: {error}")
            return
        if left is None:
            self.say(rejection, f"has a reason that can't hold: {self._why(condition)}")
            return
        self.params[name] = left
        self.held.setdefault(name, []).append(f"{condition} ({_shown(rejection.run)})")

    def _has(self, name: str, rejection: Rejection) -> bool:
        """Whether the space has a param; it is told if not."""
        if name in self.space.params:
            return True
        self.say(
            rejection,
            f"was rejected for its {_shown(name)}, which is not searched"
            f"{hint(name, self.space.names)}.",
        )
        return False

    def _why(self, condition: Condition) -> str:
        """Why nothing is left of a condition's param."""
        whole = self.space.params[condition.name]
        nothing = f"{condition} leaves nothing of {condition.name}"
        with suppress(BadSpace):
            if left_of(whole, condition, whole) is not None:
                held = ", ".join(self.held[condition.name])
                return (
                    f"{nothing} beside {held}. The newest rejection counts, and of one rejection "
                    "what stands first."
                )
        near = hint(condition.values, texts(whole))
        return f"{nothing}, which is {described(whole)}{near}."


def _examples(space: SearchSpace, config: Mapping[str, str]) -> str:
    """Conditions as a person may write them, on params and values that a run has."""
    own = [name for name in space.names if name in config] or space.names[:1]
    ordered = [name for name in own if not isinstance(space.params[name], Categorical)]
    listed = [name for name in own if isinstance(space.params[name], Categorical)]
    examples = [f"{n}<{config.get(n, '...')}, {n}>{config.get(n, '...')}" for n in ordered[:1]]
    examples += [f"{name}!={config.get(name, '...')}" for name in listed[:1]]
    return _shown(", ".join(examples))


def _shown(text: str) -> str:
    """A person's text, cut to what a remark can bear."""
    plain = _plain(text)
    return plain if len(plain) <= MAX_SHOWN else f"{plain[:MAX_SHOWN]}..."


def _plain(text: str) -> str:
    """A text on one line, without what a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
