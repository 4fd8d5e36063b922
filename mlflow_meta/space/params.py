"""Parameters of a search space: which values each may take, and where they lie on the unit line.

unit:   position of a value on the parameter's own scale, 0 at `low` and 1 at `high`; logarithmic
        where `log` is set. Values outside the bounds map outside [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.trials import Config, ConfigValue

Vector = NDArray[np.float64]
When = Mapping[str, tuple[ConfigValue, ...]]  # parent -> the values under which a param exists


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number; a bool is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_known(value: object) -> TypeGuard[int | float]:
    return is_number(value) and value == value  # nan is no number that has a neighbour


def same(one: object, other: object) -> bool:
    """Equality that tells True from 1, as a params table does, and 1 from 1.0 does not."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def is_active(when: When, config: Config) -> bool:
    """Whether a parameter with the condition `when` exists under `config`."""
    return all(
        parent in config and any(same(config[parent], value) for value in values)
        for parent, values in when.items()
    )


def _check_range(low: float, high: float, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"`low < high` must hold and both be finite, but got {low=}, {high=}.")
    if log and low <= 0:
        raise ValueError(f"`low > 0` must hold for a log scale, but got {low=}.")


def _to_unit(values: Vector, low: float, high: float, log: bool) -> Vector:
    if log:
        tiny = low * 1e-3  # a value at or below 0 has no logarithm: it lies left of every other
        values, low, high = np.log(np.maximum(values, tiny)), math.log(low), math.log(high)
    return (values - low) / (high - low)


def _from_unit(unit: Vector, low: float, high: float, log: bool) -> Vector:
    if log:
        return np.asarray(np.exp(math.log(low) + unit * (math.log(high) - math.log(low))))
    return low + unit * (high - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Float:
    """A real parameter in `[low, high]`, both ends included.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Whether its scale is logarithmic.
        step: Distance of the grid that starts at `low`; None for every real number between.
        when: Conditions under which it exists; empty for always.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    when: When = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log)
        # 0.3 - 0.2 is a little less than 0.1.
        if self.step is not None and not 0 < self.step <= (self.high - self.low) * (1 + 1e-9):
            raise ValueError(f"`0 < step <= high - low` must hold, but got {self.step=}.")

    def to_unit(self, values: Vector) -> Vector:
        """Positions `(n,)` of `values (n,)` on the parameter's scale."""
        return _to_unit(values, self.low, self.high, self.log)

    def from_unit(self, unit: Vector) -> list[ConfigValue]:
        """The values at `unit (n,)`, cut to the bounds and put on the grid."""
        values = _from_unit(np.clip(unit, 0.0, 1.0), self.low, self.high, self.log)
        return [self._allowed(self._short(float(value))) for value in values]

    def exactly(self, unit: Vector) -> list[ConfigValue]:
        """The values at `unit (n,)` with all their digits, in the bounds and on the grid."""
        values = _from_unit(np.clip(unit, 0.0, 1.0), self.low, self.high, self.log)
        return [self._allowed(float(value)) for value in values]

    def _short(self, value: float) -> float:
        """`value` without digits that nobody chose: 5 of its own or, if narrow, of the range."""
        if self.log and self.high > 10 * self.low:
            return float(f"{value:.5g}")
        return round(value, 5 - math.ceil(math.log10(self.high - self.low)))

    def nearest(self, value: ConfigValue) -> ConfigValue | None:
        """The allowed value next to `value`; None where that is no number."""
        return self._allowed(float(value)) if _is_known(value) else None

    def _allowed(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.step is None:
            return value
        steps = min(round((value - self.low) / self.step), int(self.n_values) - 1)
        # 12 digits, so that 3 steps of 0.1 are written 0.3 and not 0.30000000000000004.
        return min(max(float(f"{self.low + steps * self.step:.12g}"), self.low), self.high)

    def parse(self, text: str) -> ConfigValue | None:
        """The value that MLflow keeps as `text`; None where it is no value of this kind."""
        try:
            return float(text)
        except ValueError:
            return None

    def grid(self) -> list[ConfigValue]:
        """Every value it may take; only where it has a step."""
        assert self.step is not None, "a continuum has no grid"
        return [self._allowed(self.low + i * self.step) for i in range(int(self.n_values))]

    def sample(self, n: int, rng: np.random.Generator) -> list[ConfigValue]:
        """`n` values, uniform on the parameter's scale."""
        return self.from_unit(rng.random(n))

    @property
    def n_values(self) -> float:
        """How many values it may take; inf for a continuum."""
        if self.step is None:
            return math.inf
        return 1 + math.floor((self.high - self.low) / self.step + 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer:
    """A whole-number parameter in `[low, high]`, both ends included.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Whether its scale is logarithmic.
        step: Distance of the grid that starts at `low`.
        when: Conditions under which it exists; empty for always.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1
    when: When = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log)
        if not 0 < self.step <= self.high - self.low:
            raise ValueError(f"`0 < step <= high - low` must hold, but got {self.step=}.")

    def to_unit(self, values: Vector) -> Vector:
        """Positions `(n,)` of `values (n,)` on the parameter's scale."""
        return _to_unit(values, self.low, self.high, self.log)

    def from_unit(self, unit: Vector) -> list[ConfigValue]:
        """The values at `unit (n,)`, cut to the bounds and put on the grid."""
        values = _from_unit(np.clip(unit, 0.0, 1.0), self.low, self.high, self.log)
        return [self._allowed(float(value)) for value in values]

    def exactly(self, unit: Vector) -> list[ConfigValue]:
        """The value next to each of `unit (n,)`, and its neighbours on the grid."""
        found = [int(value) for value in self.from_unit(unit) if not isinstance(value, str)]
        near = [value + side * self.step for value in found for side in (-1, 0, 1)]
        return [self._allowed(value) for value in near]

    def nearest(self, value: ConfigValue) -> ConfigValue | None:
        """The allowed value next to `value`; None where that is no number."""
        return self._allowed(value) if _is_known(value) else None

    def _allowed(self, value: float) -> int:
        steps = round((min(max(value, self.low), self.high) - self.low) / self.step)
        return self.low + self.step * min(steps, int(self.n_values) - 1)

    def parse(self, text: str) -> ConfigValue | None:
        """The value that MLflow keeps as `text`; None where it is no value of this kind."""
        try:
            return int(text)
        except ValueError:
            return None

    def grid(self) -> list[ConfigValue]:
        """Every value it may take."""
        return list(range(self.low, self.high + 1, self.step))

    def sample(self, n: int, rng: np.random.Generator) -> list[ConfigValue]:
        """`n` values, uniform on the parameter's scale."""
        # Half a step on either side gives the first and the last value their full share.
        half = 0.5 * self.step
        low = self.low**2 / (self.low + half) if self.log else self.low - half
        values = _from_unit(rng.random(n), low, self.high + half, self.log)
        return [self._allowed(float(value)) for value in values]

    @property
    def n_values(self) -> float:
        """How many values it may take."""
        return 1 + (self.high - self.low) // self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class Categorical:
    """A parameter with listed choices. Choices that are all numbers are ordered.

    Attributes:
        choices: At least one, all different; numbers in ascending order. One alone is fixed.
        log: Whether the scale of ordered choices is logarithmic.
        when: Conditions under which it exists; empty for always.
    """

    choices: tuple[ConfigValue, ...]
    log: bool = False
    when: When = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("At least 1 choice is needed, but got [].")
        if not all(math.isfinite(c) for c in self.choices if is_number(c)):
            raise ValueError(f"Numbers must be finite, but got {list(self.choices)!r}.")
        if any(same(a, b) for i, a in enumerate(self.choices) for b in self.choices[:i]):
            raise ValueError(f"Choices must differ, but got {list(self.choices)!r}.")
        if self.is_ordered and list(self.choices) != sorted(self._numbers):
            raise ValueError(f"Numbers must be in ascending order, but got {list(self.choices)!r}.")
        if self.log and not (self.is_ordered and min(self._numbers) > 0):
            raise ValueError(f"A log scale needs positive numbers, but got {list(self.choices)!r}.")

    @property
    def _numbers(self) -> list[float]:
        return [float(choice) for choice in self.choices]

    @property
    def is_ordered(self) -> bool:
        """Whether the choices are numbers, so that more and less have a meaning."""
        return all(is_number(choice) for choice in self.choices)

    def to_unit(self, values: Vector) -> Vector:
        """Positions `(n,)` of the numbers `values (n,)`; only for ordered choices.

        A single choice is at 0, and whatever differs from it at -1 or 1.
        """
        numbers = self._numbers
        if len(numbers) == 1:
            return np.asarray(np.sign(values - numbers[0]))
        return _to_unit(values, numbers[0], numbers[-1], self.log)

    def nearest(self, value: ConfigValue) -> ConfigValue | None:
        """The choice that equals `value`, or the nearest number; None where there is none."""
        equal = next((choice for choice in self.choices if same(choice, value)), None)
        if equal is not None or not (self.is_ordered and _is_known(value)):
            return equal
        unit = self.to_unit(np.array(self._numbers))
        distances = np.abs(unit - self.to_unit(np.array([float(value)])))
        return self.choices[int(np.argmin(distances))]

    def parse(self, text: str) -> ConfigValue | None:
        """The choice that MLflow keeps as `text`; None where there is none."""
        return next((choice for choice in self.choices if str(choice) == text), None)

    def grid(self) -> list[ConfigValue]:
        """Every value it may take."""
        return list(self.choices)

    def sample(self, n: int, rng: np.random.Generator) -> list[ConfigValue]:
        """`n` choices, each as likely as the others."""
        return [self.choices[i] for i in rng.integers(len(self.choices), size=n)]

    @property
    def n_values(self) -> float:
        """How many values it may take."""
        return len(self.choices)


Param = Float | Integer | Categorical


def allows(param: Param, value: ConfigValue) -> bool:
    """Whether a parameter may take a value; numbers are compared to 12 digits."""
    near = param.nearest(value)
    if is_number(near) and is_number(value):
        return f"{near:.12g}" == f"{value:.12g}"
    return near is not None and same(near, value)
