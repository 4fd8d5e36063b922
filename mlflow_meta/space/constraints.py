"""What people demand of configurations beyond the ranges: constraints between params."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.errors import BadSpace
from mlflow_meta.space.expressions import Term, read
from mlflow_meta.space.params import Categorical, Param, is_number, same
from mlflow_meta.space.parts import described, hint, wrong_space
from mlflow_meta.trials import Config, ConfigValue

Mask = NDArray[np.bool_]

MAX_CONSTRAINTS = 100
_SHOWN = 60  # characters of a constraint in an error


@dataclass(frozen=True, slots=True)
class Constraint:
    """An expression that has to be true of a configuration that sets all params that it names.

    Of one that lacks any of them it says nothing: it holds.

    Attributes:
        text: As people write it.
        term: Its tree.
    """

    text: str
    term: Term

    @classmethod
    def read(cls, text: str) -> Constraint:
        """Read what people write.

        Raises:
            ValueError: If it is no expression that is true or false, see `expressions`.
        """
        return cls(text.strip(), read(text))

    @property
    def names(self) -> frozenset[str]:
        """The params that it names."""
        return frozenset(str(t.value) for t in self.term.walk() if t.word == "param")

    def allows(self, configs: Sequence[Config]) -> Mask:
        """Of which configurations it holds, `(n,)`."""
        names = self.names
        concerned = [i for i, config in enumerate(configs) if names.issubset(config)]
        found = np.ones(len(configs), dtype=bool)
        if concerned:
            values = {n: _column([configs[i][n] for i in concerned]) for n in names}
            found[concerned] = self.term.of(values).astype(bool)
        return found


def _column(values: Sequence[ConfigValue]) -> NDArray[np.generic]:
    numbers = all(is_number(value) for value in values)
    column = np.empty(len(values), dtype=float if numbers else object)
    column[:] = values
    return column


def read_constraints(
    texts: object,
    params: Mapping[str, Param],
    places: Sequence[str] = (),
    check: Callable[[Term, Mapping[str, Param]], None] = lambda term, params: None,
) -> tuple[Constraint, ...]:
    """The constraints of a search-space file.

    Args:
        texts: What stands under `constraints:`.
        params: What they may name.
        places: Of each where it stands, for errors; its number if not given.
        check: Raises a ValueError at what else may not be.

    Raises:
        BadSpace: If one can't be read, or can't be about such params.
    """
    if not isinstance(texts, Sequence) or isinstance(texts, str):
        raise BadSpace(f"`constraints` must be a list of texts, but got {texts!r:.80}.")
    if len(texts) > MAX_CONSTRAINTS:
        raise BadSpace(f"There are {len(texts)} constraints, and may be {MAX_CONSTRAINTS}.")
    found, wrong = [], []
    for i, text in enumerate(texts):
        place = places[i] if i < len(places) else f"constraint {i + 1}"
        try:
            if not isinstance(text, str):
                raise ValueError("it is no text: put it in quotes.")
            constraint = Constraint.read(text)
            check_constraint(constraint, params)
            check(constraint.term, params)
            found.append(constraint)
        except ValueError as error:
            shown = text if len(str(text)) <= _SHOWN else f"{str(text)[:_SHOWN]}..."
            wrong.append(f"{place}, {shown!r}: {error}")
    if wrong:
        raise wrong_space(wrong)
    return tuple(found)


def check_constraint(constraint: Constraint, params: Mapping[str, Param]) -> None:
    """Raise a ValueError unless it names params that there are, each as what it is."""
    if not constraint.names:
        raise ValueError("it names no param.")
    for term in constraint.term.walk():
        if term.word == "param" and term.value not in params:
            raise ValueError(
                f"there is no param {str(term.value)!r} (column {term.column})"
                f"{hint(str(term.value), list(params))}; there are {', '.join(params)}."
            )
    _check_kinds(constraint.term, params)
    if constraint.term.word == "param" and _kind(constraint.term, params) != "truth":
        raise ValueError(f"{constraint.term.value} is not true or false: compare it.")


def _kind(term: Term, params: Mapping[str, Param]) -> str:
    """What a term gives: number, text, truth or, of mixed choices, something."""
    if term.word != "param":
        return term.kind
    param = params[str(term.value)]
    if not isinstance(param, Categorical) or param.is_ordered:
        return "number"
    for kind, cls in (("truth", bool), ("text", str)):
        if all(isinstance(choice, cls) for choice in param.choices):
            return kind
    return "something"


def _check_kinds(term: Term, params: Mapping[str, Param]) -> None:
    """Params stand where what they are is taken; anything may be compared by == and !=."""
    for part in term.parts:
        _check_kinds(part, params)
        if part.word != "param" or term.word in ("==", "!="):
            continue
        wanted = "truth" if term.word in ("and", "or", "not") else "number"
        kind = _kind(part, params)
        if kind != wanted:
            is_a = {"truth": "true or false", "text": "a text", "number": "a number"}
            takes = "what is true or false" if wanted == "truth" else "numbers"
            raise ValueError(
                f"`{term.word}` takes {takes}, but {part.value} is "
                f"{is_a.get(kind, 'not always one')} (column {part.column})."
            )


def check_choices(term: Term, params: Mapping[str, Param]) -> None:
    """Raise a ValueError where a param is compared with what it can never be.

    Of a file only: of a part of a space this is as it should be.
    """
    for part in term.parts:
        check_choices(part, params)
    if term.word not in ("==", "!="):
        return
    for one, other in (term.parts, term.parts[::-1]):
        if one.word != "param" or other.word != "constant":
            continue
        param = params[str(one.value)]
        if not isinstance(param, Categorical):
            if not is_number(other.value):
                raise ValueError(
                    f"{one.value} is a number, but is compared with {other.value!r} (column "
                    f"{other.column})."
                )
        elif not any(same(choice, other.value) for choice in param.choices):
            raise ValueError(
                f"{one.value} is never {_plain(other.value)} (column {other.column})"
                f"{hint(str(other.value), [str(c) for c in param.choices])}; it is "
                f"{described(param)}."
            )


def _plain(value: ConfigValue) -> str:
    return f"{value:g}" if is_number(value) else repr(value)
