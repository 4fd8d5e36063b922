"""What people decide about suggested runs, and what their reasons leave of the search space.

A person sets tags in MLflow's UI: `mlflow_meta.decision` = `approve` or `reject`, and says why in
`mlflow_meta.reason`, or in the same tag behind a colon (`reject: not lr>0.1`). A reason is one or
more of these, with `;`, ` and ` or a line break between:

    not CONDITION    never again where it holds; also `no`, `never`, `avoid` and `without`
    only CONDITION   from now on only where it holds; also `want`, `keep` and `use`
    CONDITION        `not`, where it holds for the rejected run: it says what is wrong with it; else
                     `only`: it says what the run should have been
    NAME             not with this run's value again

A condition is as `narrow.narrowed` has it: NAME=VALUES, NAME!=VALUES, NAME<X, NAME<=X, NAME>X or
NAME>=X. Anything else is a text for people, which constrains nothing. How each was understood is
told, and written on the run.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mlflow_meta.errors import BadSpace
from mlflow_meta.space.decisions import one_line, short
from mlflow_meta.space.narrow import Condition, asked, left_of, number_or_nan, reachable
from mlflow_meta.space.params import Categorical, Param, allows
from mlflow_meta.space.parts import described, hint, texts
from mlflow_meta.space.search_space import SearchSpace

_NOT = re.compile(r"(?:not|no|never|avoid|without)\s+(.+)", re.IGNORECASE)
_ONLY = re.compile(r"(?:only|want|keep|use)\s+(.+)", re.IGNORECASE)
_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "=": "!=", "!=": "="}
_HOLDS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_OR = re.compile(r"[<>=].*\s(?:or|\|\|?)\s", re.IGNORECASE)  # a condition, and another instead
_BETWEEN = re.compile(r"[;\n\r]|\s+and\s+", re.IGNORECASE)  # of two conditions


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A run that a person does not want to be trained.

    Attributes:
        run: Its name or id, as remarks are to call it.
        config: Its params, as the texts that MLflow keeps.
        reason: Why, in the person's own words.
        run_id: Its id, for who writes on it how it was understood.
    """

    run: str
    config: Mapping[str, str]
    reason: str
    run_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constrained:
    """What reasons for rejections leave of a space.

    Attributes:
        space: The part, in which all conditions hold but those that a remark tells of.
        held: What holds from now on, and why, as sentences; the newest rejection first.
        remarks: What constrains nothing, and why, likewise.
        understood: How each rejection's reason was understood: run id -> conditions.
    """

    space: SearchSpace
    held: tuple[str, ...]
    remarks: tuple[str, ...]
    understood: Mapping[str, str]


def constrained(space: SearchSpace, rejections: Sequence[Rejection]) -> Constrained:
    """The part of a space that the reasons for rejections leave.

    Each condition holds where its param exists. All add up; where two exclude each other, that of
    the newer rejection holds, and of one rejection the first.

    Args:
        space: The whole.
        rejections: The oldest first.

    Example:
        >>> lr = {"type": "float", "low": 1e-4, "high": 1.0, "log": True}
        >>> no = Rejection(run="suggested 1", config={"lr": "0.5"}, reason="lr>0.1")
        >>> constrained(SearchSpace.from_dict({"lr": lr}), [no]).space.params["lr"].high
        0.1
    """
    part = _Part(space, dict(space.params))
    for rejection in reversed(rejections):
        free = []
        for piece in filter(None, (piece.strip() for piece in _BETWEEN.split(rejection.reason))):
            if _OR.search(piece):
                part.say(
                    rejection,
                    f"was rejected since {short(piece)!r}: conditions joined by 'or' are not kept "
                    "to. Write one condition, or several that all hold, joined by 'and'.",
                )
            elif not part.read(piece, rejection):
                free.append(piece)
        if free:
            part.say(
                rejection,
                f"was rejected since {short('; '.join(free))!r}, which constrains nothing. What "
                f"the next search keeps to is such as {_examples(space, rejection.config)}.",
            )
    return Constrained(
        space=space.part(reachable(part.params)),
        held=tuple(part.sentences),
        remarks=tuple(part.remarks),
        understood={run_id: f"from now on {', '.join(c)}" for run_id, c in part.understood.items()},
    )


@dataclass(slots=True)
class _Part:
    """What is left of a space while rejections are read, the newest first."""

    space: SearchSpace
    params: dict[str, Param]
    remarks: list[str] = field(default_factory=list)
    held: dict[str, list[str]] = field(default_factory=dict)  # param -> what it is held to
    sentences: list[str] = field(default_factory=list)
    understood: dict[str, list[str]] = field(default_factory=dict)  # run id -> what holds of it

    def read(self, piece: str, rejection: Rejection) -> bool:
        """Do as a piece of a reason says; False if it says nothing that a search can keep to."""
        banned, wanted = _NOT.fullmatch(piece), _ONLY.fullmatch(piece)
        is_banned = banned is not None
        words = piece if piece in self.space.names else (banned or wanted or [piece, piece])[1]
        if (words in self.space.names or words in rejection.config) and not wanted:
            self.exclude(words, rejection)
            return True
        try:
            condition = asked(words)
        except ValueError:
            return False
        name, own = condition.name, rejection.config.get(condition.name)
        why = f"was rejected since {short(piece)!r}"
        if not (banned or wanted):
            holds = own is not None and name in self.space.params and self._meets(condition, own)
            is_banned = holds
            its = f"its {name} = {short(own)} is" if own is not None else f"it has no {name}"
            why += f", and {its}{'' if holds or own is None else ' not'}"
        if is_banned:
            condition = condition._replace(relation=_OPPOSITE[condition.relation])
        self.narrow(condition, rejection, why)
        return True

    def _meets(self, condition: Condition, text: str) -> bool:
        """Whether a condition holds for a value."""
        whole, value = self.space.params[condition.name], number_or_nan(text)
        if holds := _HOLDS.get(condition.relation):
            return bool(holds(value, number_or_nan(condition.values)))
        with suppress(BadSpace):
            named = left_of(whole, condition._replace(relation="="), whole)
            parsed = whole.parse(text)
            is_named = named is not None and parsed is not None and allows(named, parsed)
            return is_named == (condition.relation == "=")
        return False

    def say(self, rejection: Rejection, words: str) -> None:
        """Remark on a rejection."""
        self.remarks.append(one_line(f"{short(rejection.run)} {words}"))

    def exclude(self, name: str, rejection: Rejection) -> None:
        """Leave out a run's value of a param, where values can be left out one by one."""
        if not self._has(name, rejection):
            return
        whole, value = self.space.params[name], rejection.config.get(name)
        if value is None:
            self.say(rejection, f"was rejected for its {name}, but it has none.")
        elif not isinstance(whole, Categorical):
            number = short(value)
            self.say(
                rejection,
                f"was rejected for its {name}, which says no direction: write only "
                f"{name}<{number} or only {name}>{number} for what is wanted.",
            )
        elif (choice := whole.parse(value)) is not None:  # else it is searched no more
            why = f"was rejected for its {name}"
            self.narrow(Condition(name, "!=", str(choice)), rejection, why)

    def narrow(self, condition: Condition, rejection: Rejection, why: str) -> None:
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
        self.held.setdefault(name, []).append(f"{condition} ({short(rejection.run)})")
        self.sentences.append(one_line(f"{short(rejection.run)} {why}: from now on {condition}."))
        self.understood.setdefault(rejection.run_id, []).append(one_line(str(condition)))

    def _has(self, name: str, rejection: Rejection) -> bool:
        """Whether the space has a param; it is told if not."""
        if name in self.space.params:
            return True
        self.say(
            rejection,
            f"was rejected for its {short(name)}, which is not searched"
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
    examples = [
        f"not {n}>{config.get(n, '...')}, only {n}>{config.get(n, '...')}" for n in ordered[:1]
    ]
    examples += [f"not {name}={config.get(name, '...')}" for name in listed[:1]]
    return short(", ".join(examples))
