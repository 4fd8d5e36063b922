"""The gate: whether one meta-model surely predicts later trials better than another.

n:     trials that neither model has learned from, each predicted by both
error: |predicted - observed| `(n,)`, in scores within the task; lower is better
gain:  mean of champion's error - challenger's error; positive where the challenger is better

A gain is sure where the bootstrap's interval of it, of trials drawn with their pairs kept, lies
above 0. Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

Vector = NDArray[np.float64]

MIN_LATER = 8  # trials, from which a comparison says anything
N_RESAMPLES = 2000
DOUBT = 0.025  # how often a challenger that is no better may pass
LEVEL = 0.8  # of the intervals that are looked at
LEAST = 0.7  # of the trials in intervals of `LEVEL`: what is known of later ones is never all
TOO_RARE = 0.05  # probability of so few trials in their intervals, if `LEAST` is held
RARER = 0.01  # the same, from which on a champion has drifted: it is asked again every night
MUCH_WORSE = 1.25  # times the error that was promised, from which on a champion has drifted


class Verdict(str, Enum):
    """What became of a challenger, and why; the values are what people read."""

    FIRST = "promoted: there was no champion"
    BETTER = "promoted: it predicts later runs better than the champion"
    TELLS = "promoted: the champion could not tell good from bad"
    NEWER = "promoted: neither it nor the champion can tell good from bad, and it is newer"
    DAMAGED = "promoted: the champion's files are damaged"
    OTHER_QUESTION = "promoted: the champion was trained for another question"
    BY_HAND = "promoted by hand"
    ROLLED_BACK = "promoted again: the one after it has drifted, and predicts later runs worse"
    NO_SIGNAL = "not promoted: it can't tell good from bad"
    TOO_FEW = f"not promoted: fewer than {MIN_LATER} later runs to compare it with the champion on"
    NOT_BETTER = "not promoted: on later runs it is not surely better than the champion"
    NOT_COVERING = "not promoted: its intervals hold fewer of the later runs than they say"

    @property
    def is_promoted(self) -> bool:
        """Whether the challenger is the champion now."""
        return self.value.startswith("promoted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How a model predicted trials that it had not seen.

    Attributes:
        errors: `(n,)`, see the module.
        inside: `(n,)`, whether each lay in its interval of `LEVEL`.
    """

    errors: Vector
    inside: NDArray[np.bool_]

    @property
    def coverage(self) -> float:
        """Share of the trials in their interval; nan if there are none."""
        return float(self.inside.mean()) if len(self.inside) else float("nan")

    @property
    def covers(self) -> bool:
        """Whether its intervals may be right: no fewer trials lay in them than chance explains."""
        return self.p_of_coverage >= TOO_RARE

    @property
    def p_of_coverage(self) -> float:
        """Probability of so few trials in their intervals, if these hold `LEAST`."""
        return float(binom.cdf(self.inside.sum(), len(self.inside), LEAST))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models on the same later trials.

    Attributes:
        n: How many trials.
        gain: See the module; nan if there are none.
        gain_low: The gain that is surpassed in all but `DOUBT` of the resamples.
        coverage: Of the challenger's intervals.
        covers: Whether these may be right.
    """

    n: int
    gain: float
    gain_low: float
    coverage: float
    covers: bool

    @property
    def verdict(self) -> Verdict:
        """What the trials say of the challenger."""
        if self.n < MIN_LATER:
            return Verdict.TOO_FEW
        if not self.gain_low > 0:
            return Verdict.NOT_BETTER
        return Verdict.BETTER if self.covers else Verdict.NOT_COVERING


def compare(champion: Judged, challenger: Judged, rng: np.random.Generator) -> Comparison:
    """Pair the errors of two models on the same trials.

    Raises:
        ValueError: If they are not of equally many trials.
    """
    if champion.errors.shape != challenger.errors.shape:
        raise ValueError(
            f"Both models must predict the same trials, but they predicted "
            f"{len(champion.errors)} and {len(challenger.errors)}."
        )
    gains = champion.errors - challenger.errors
    n = len(gains)
    return Comparison(
        n=n,
        gain=float(gains.mean()) if n else float("nan"),
        gain_low=float(np.quantile(_means(gains, rng), DOUBT)) if n else float("nan"),
        coverage=challenger.coverage,
        covers=bool(n) and challenger.covers,
    )


def has_drifted(champion: Judged, promised_rmse: float, rng: np.random.Generator) -> bool:
    """Whether a model surely predicts later trials worse than its cross-validation promised.

    Its intervals hold too few of them, or its mean squared error surely is more than `MUCH_WORSE`
    squared times the promised one.

    Args:
        champion: On trials that it has not learned from.
        promised_rmse: Of its cross-validation, in the same scores.
        rng: Of the resamples.
    """
    if len(champion.errors) < MIN_LATER:
        return False
    low = np.quantile(_means(champion.errors**2, rng), DOUBT)
    return bool(champion.p_of_coverage < RARER or low > (MUCH_WORSE * promised_rmse) ** 2)


def _means(values: Vector, rng: np.random.Generator) -> Vector:
    """Means `(N_RESAMPLES,)` of resamples of the values `(n,)`."""
    n = len(values)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)
    return np.asarray(counts @ values / n)
