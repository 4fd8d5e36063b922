"""A param as plain data, in which files and JSON have it, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any

from mlflow_meta.space.params import Categorical, Float, Integer, Param, is_number
from mlflow_meta.trials import ConfigValue

_KINDS: dict[str, type[Float] | type[Integer] | type[Categorical]] = {
    "float": Float,
    "int": Integer,
    "categorical": Categorical,
}


def param_to_dict(param: Param) -> dict[str, Any]:
    """The plain form that `param_from_dict` reads; defaults are left out."""
    kind = next(kind for kind, cls in _KINDS.items() if isinstance(param, cls))
    entry: dict[str, Any] = {"type": kind}
    for spec in fields(param):
        value = getattr(param, spec.name)
        if spec.name == "when":
            value = {parent: list(values) for parent, values in value.items()}
        if spec.name == "choices":
            value = list(value)
        if (value and value != spec.default) or spec.name in ("low", "high"):
            entry[spec.name] = value
    return entry


def param_from_dict(entry: object) -> Param:
    """The param that is written so, see `SearchSpace.from_dict`; a ValueError if there is none."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"expected `{{type: ..., ...}}`, but got {entry!r}.")
    kind = entry.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"`type` must be float, int or categorical, but got {kind!r}.")
    cls = _KINDS[kind]
    allowed = {spec.name for spec in fields(cls)}
    strange = sorted(str(key) for key in entry if key != "type" and key not in allowed)
    if strange:
        raise ValueError(f"`{strange[0]}` does not go with `type: {kind}` ({sorted(allowed)}).")
    values = {key: value for key, value in entry.items() if key != "type" and value is not None}
    if not isinstance(values.get("log", False), bool):
        raise ValueError(f"`log` must be true or false, but got {values['log']!r}.")
    values["when"] = _read_when(values.get("when"))
    if cls is Categorical:
        values["choices"] = _read_choices(values.get("choices"))
    else:
        for key in ("low", "high", "step"):
            if key != "step" or key in values:
                values[key] = _read_number(key, values.get(key), whole=cls is Integer)
    return cls(**values)


def _read_number(key: str, value: object, *, whole: bool) -> float:
    # Most YAML loaders read `1e-5`, without a dot, as a string: take it for the number that it is.
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"`{key}` must be a number, but got {value!r}.")
    if not whole:
        return float(value)
    if not float(value).is_integer():
        raise ValueError(f"`{key}` of an int must be a whole number, but got {value!r}.")
    return int(value)


def _read_choices(choices: object) -> tuple[ConfigValue, ...]:
    if not isinstance(choices, Sequence) or isinstance(choices, str):
        raise ValueError(f"`choices` must be a list, but got {choices!r}.")
    for choice in choices:
        if not isinstance(choice, str | int | float | bool):
            raise ValueError(f"choices are texts, numbers or true/false, but got {choice!r}.")
    return in_order(choices)


def in_order(choices: Sequence[ConfigValue]) -> tuple[ConfigValue, ...]:
    """Choices as `Categorical` takes them: numbers in ascending order, others as they are."""
    numbers = [choice for choice in choices if is_number(choice)]
    return tuple(sorted(numbers) if len(numbers) == len(choices) else choices)


def _read_when(when: object) -> dict[str, tuple[ConfigValue, ...]]:
    if when is None:
        return {}
    if not isinstance(when, Mapping):
        raise ValueError(f"`when` must be `{{parent: [values]}}`, but got {when!r}.")
    return {
        str(parent): tuple(values)
        if isinstance(values, Sequence) and not isinstance(values, str)
        else (values,)
        for parent, values in when.items()
    }
