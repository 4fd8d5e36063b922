"""What all parts of the benchmark of the search share: how it runs, what is timed and said."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

N_PREDICTED = 200_000  # configurations that a library's `predict` is timed on
HEADER = f"{'':<66} {'seen':<46} {'asked':<12}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much is measured.

    Attributes:
        repeats: How often everything is timed.
        seconds: That the hardest search may take.
        small: Whether to run through with small sizes only; what is then seen says nothing.
    """

    repeats: int
    seconds: float
    small: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        what: The part, and what was measured.
        value: What is judged.
        seen: It in words, with its unit and what it is made of.
        most: The greatest value that will do; None if there is no such bound.
        least: The same from below.
        unit: Of the bounds.
    """

    what: str
    value: float
    seen: str
    most: float | None = None
    least: float | None = None
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether it will do; nan, for what could not be measured, will not."""
        return (self.least is None or self.value >= self.least) and (
            self.most is None or self.value <= self.most
        )

    def __str__(self) -> str:
        asked, verdict = "", "reported"
        if self.most is not None or self.least is not None:
            sign, bound = ("<=", self.most) if self.most is not None else (">=", self.least)
            asked, verdict = f"{sign} {bound:g}{self.unit}", "met" if self.met else "MISSED"
        return f"{self.what:<66} {self.seen:<46} {asked:<12} {verdict}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """What some repeats of one thing took, in seconds."""

    all_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """The median of the repeats."""
        return median(self.all_s)

    def __str__(self) -> str:
        low, high = min(self.all_s), max(self.all_s)
        return f"{seconds(self.median_s)} ({seconds(low)} to {seconds(high)})"


def timed(
    work: Callable[[], Any], repeats: int, before: Callable[[], Any] = lambda: None
) -> tuple[Took, Any]:
    """How long something takes, and its last result; the first, which compiles, is left out.

    Args:
        work: Something.
        repeats: How often it is timed.
        before: What is done before each, such as to time what it is compared with.
    """
    result = work()
    all_s = []
    for _ in range(repeats):
        before()
        start = time.perf_counter()
        result = work()
        all_s.append(time.perf_counter() - start)
    return Took(all_s=tuple(all_s)), result


def seconds(s: float) -> str:
    """Seconds, as people say them."""
    for unit, size in (("years", 365.25 * 86_400), ("days", 86_400), ("h", 3600)):
        if s >= 2 * size:
            return f"{s / size:,.3g} {unit}" if s < 1e6 * size else f"{s / size:.1e} {unit}"
    return f"{s:.3g} s" if s >= 0.1 else f"{1000 * s:.3g} ms"


def say(words: str) -> None:
    """Progress."""
    print(words, file=sys.stderr, flush=True)


def times_faster(what: str, theirs_s: float, ours_s: float, least: float | None = None) -> Row:
    """How much longer a library's own `predict` takes than we do."""
    ratio = theirs_s / ours_s
    seen = f"{ratio:,.4g} x ({seconds(theirs_s)})" if ratio < 1e6 else f"{ratio:.1e} x"
    return Row(what=what, value=ratio, seen=seen, least=least, unit=" x")


def predict_s(regressor: Any, X: np.ndarray, n_configs: float, repeats: int) -> float:
    """How long `predict` takes for all configurations, by what it takes for `X`."""
    took, _ = timed(lambda: regressor.peer(X), repeats)
    return took.median_s / len(X) * n_configs
