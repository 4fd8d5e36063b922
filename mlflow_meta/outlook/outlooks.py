"""Verdicts on running trainings, held to a share of false stops on finished ones.

n    finished curves, of which m end best
L    looks: the few steps at which curves are compared, from a tenth of the way on

At a look, `Rest` predicts a curve's end with an expected error. Each finished curve is replayed as
if it were still running, predicted by the others:

    score_i = max over looks of (predicted end of i - end of i) / expected error

A run with a score under the threshold k has never had `predicted end - k * error` above its true
end: it could not have been stopped wrongly, whatever the incumbent was and however often one
looked. k is the conformal quantile of the scores of the m best curves, since who becomes the
incumbent is one of these (Mondrian conformal prediction; Vovk et al., 2005). Of fewer than 49
scores even the largest is passed by more than 2%: k is then farther out, by an exponential tail
through the median and the largest one.

A second bound needs no model: no finished curve has fallen farther from the look to its end than
`fall`. That the next of n + 1 exchangeable curves does has the probability 1 / (n + 1) at each
look. The higher one of both bounds counts.

What the first one guarantees: of runs that end in the better half and are exchangeable with the
finished ones, at most max(2%, 1 / (m + 1)) are ever said not to beat a value that they beat in the
end, but for the little that a prediction by all curves differs from one by all but one. Below 49
best curves, the 2% are what the tail is taken for, and what replays have measured
(`tests/benchmarks/watch.py`). Where runs are stopped, only those that were not are learned from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.errors import TooLittle
from mlflow_meta.outlook.curve import Curve
from mlflow_meta.outlook.rest import Rest
from mlflow_meta.trials import At

Vector = NDArray[np.float64]

MIN_CURVES = 30  # finished ones, before which nothing is said: of 20, replays stop too many wrongly
MIN_GOING_ON = 10  # of them at a look
N_LOOKS = 16
FIRST_LOOK = 0.1  # of the steps: before, who will be good is anybody's guess
FALSE_STOPS = 0.02  # of the runs that end in the better half
BEST = 1 / 2  # of the finished runs, of which the next incumbent will be one
CHANCE = 0.05  # at most, of what is said not to beat the incumbent
CEILING = 10.0  # in distances of the median end from the best one: what is worse is all the same
TINY = 1e-3  # of that distance: errors below it do not count


class Standing(str, Enum):
    """How a running training stands to the incumbent."""

    BEATS = "has beaten it already"
    MAY = "may beat it"
    WILL_NOT = "will not beat it"
    UNKNOWN = "too little is known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is expected of a running training.

    Attributes:
        standing: The verdict.
        step: The look at which it was judged; -1 where there was none.
        expected: Its end, minimised; nan where nothing is known.
        lowest: It hardly ends below it: the higher one of both bounds; nan where nothing is known.
        chance: That it beats the incumbent, in [0, 1]; nan where nothing is known.
    """

    standing: Standing
    step: int = -1
    expected: float = math.nan
    lowest: float = math.nan
    chance: float = math.nan


@dataclass(frozen=True, slots=True)
class _Look:
    step: int
    rest: Rest
    errors: Vector  # (n,) sorted: ends less left-out predictions, in expected errors
    fall: float  # the most that any of the n has still fallen from here to its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlooks:
    """What finished curves say about running ones.

    Attributes:
        at: Which value of a curve is its end.
        looks: In the order of their steps.
        longest: The last step of the longest finished curve.
        ceiling: What is worse counts for as bad.
        threshold: k above, >= 0.
        level: The share of false stops that is guaranteed, see above.
    """

    at: At
    looks: tuple[_Look, ...]
    longest: int
    ceiling: float
    threshold: float
    level: float

    @classmethod
    def learn(cls, curves: Sequence[Curve], at: At = "last") -> Outlooks:
        """From the curves of finished runs of one task.

        Raises:
            TooLittle: If they are fewer than `MIN_CURVES`, or all end alike.
        """
        if len(curves) < MIN_CURVES:
            raise TooLittle(
                f"{len(curves)} finished runs have a curve, and {MIN_CURVES} are needed before "
                "anything can be said about those that run."
            )
        ends = np.array([curve.value(at) for curve in curves])
        best, median = float(ends.min()), float(np.median(ends))
        if not median > best:
            raise TooLittle(f"Half of the {len(curves)} finished runs end alike, with {best:g}.")
        ceiling = median + CEILING * (median - best)
        curves = [replace(c, values=np.minimum(c.values, ceiling)) for c in curves]
        ends = np.minimum(ends, ceiling)
        scores = np.full(len(curves), -np.inf)
        looks = []
        for step in _steps(curves):
            on = [i for i, c in enumerate(curves) if c.steps[0] <= step < c.end]
            if len(on) < MIN_GOING_ON:
                continue
            x = np.stack([curves[i].shown(step) for i in on])
            rest = Rest.learn(x, ends[on], TINY * (median - best))
            errors = (ends[on] - rest.left_out) / rest.scale
            looks.append(_Look(step, rest, np.sort(errors), float((x[:, 0] - ends[on]).max())))
            # What has been better already than it is in the end is never said not to beat that.
            scores[on] = np.maximum(scores[on], np.where(x[:, 1] < ends[on], -np.inf, -errors))
        threshold, level = _quantile(scores[np.argsort(ends)])
        return cls(
            at=at,
            looks=tuple(looks),
            longest=max(c.end for c in curves),
            ceiling=ceiling,
            threshold=threshold,
            level=level,
        )

    def of(self, curve: Curve, incumbent: float) -> Outlook:
        """The outlook of a running training.

        Args:
            curve: What it has shown so far.
            incumbent: The best end of the finished runs, minimised.
        """
        so_far = float(curve.values.min())
        passed = [look for look in self.looks if curve.n_until(look.step) > 1]
        passed = [look for look in passed if look.step <= curve.end <= self.longest]
        if not passed:
            standing = Standing.BEATS if so_far < incumbent else Standing.UNKNOWN
            return Outlook(standing=standing)
        look = passed[-1]
        curve = replace(curve, values=np.minimum(curve.values, self.ceiling))
        shown = curve.shown(look.step)
        mean, scale = look.rest.end(shown)
        n_better = int(np.searchsorted(look.errors, (incumbent - mean) / scale))
        chance = (1 + n_better) / (1 + len(look.errors))
        lowest = max(mean - self.threshold * scale, float(shown[0]) - look.fall)
        mean = max(mean, lowest)
        if so_far < incumbent:
            standing = Standing.BEATS
        elif lowest > incumbent and chance <= CHANCE:
            standing = Standing.WILL_NOT
        else:
            standing = Standing.MAY
        best = so_far if self.at == "best" else math.inf
        return Outlook(
            standing=standing,
            step=look.step,
            expected=min(mean, best),
            lowest=min(lowest, best),
            chance=1.0 if standing is Standing.BEATS and self.at == "best" else chance,
        )


def _steps(curves: Sequence[Curve]) -> list[int]:
    """The looks: of all steps at which anything was logged, a few, the first ones denser."""
    logged = np.unique(np.concatenate([curve.steps for curve in curves]))
    if len(logged) < 3:
        return []
    first = max(1.0, FIRST_LOOK * len(logged))
    places = np.unique(np.geomspace(first, len(logged) - 2, N_LOOKS).round().astype(int))
    return [int(step) for step in logged[places]]


def _quantile(scores: Vector) -> tuple[float, float]:
    """k, and the share of false stops that is guaranteed with it.

    Args:
        scores: `(n,)` those of the runs that end best first.
    """
    m = max(int(len(scores) * BEST), MIN_GOING_ON)
    ordered = np.sort(np.maximum(scores[:m], 0.0))
    rank = math.ceil((m + 1) * (1 - FALSE_STOPS))
    if rank <= m:
        return float(ordered[rank - 1]), FALSE_STOPS
    median, largest = float(np.median(ordered)), float(ordered[-1])
    # P(score > k) = exp(-(k - c) / s), 1/2 at the median and 1 / (m + 1) at the largest.
    farther = math.log(0.5 / FALSE_STOPS) / math.log(0.5 * (m + 1))
    return median + (largest - median) * farther, 1 / (m + 1)
