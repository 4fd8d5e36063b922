"""Which configurations fail: a chance for each, learned from runs that failed and that finished.

base:    share of the runs that failed
chance:  of a configuration to fail, 0 to 1

Failures that come from elsewhere, such as a machine that goes down, say nothing of a configuration.
So a forest's votes on runs that it has not seen must predict failures better than `base` does, and
surely; else `base` is the chance of all, and nothing is avoided. The votes are calibrated by a
logistic regression (Platt, 1999).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit, xlogy

from mlflow_meta.columns import config_of
from mlflow_meta.features import Encoder
from mlflow_meta.space import Categorical, SearchSpace
from mlflow_meta.space.params import is_active, is_number, same
from mlflow_meta.trials import Config

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]

MIN_RUNS = 4  # that failed, and that finished, from which something may be learned
MAX_RUNS = 5000  # that are learned from, the latest
N_TREES = 200
SURE = 1.64  # standard errors by which the votes must be better than `base`: one-sided, 5%
N_CALIBRATED = 2  # parameters of the calibration, each of which earns one nat by itself (Akaike)
NOTABLE = 0.05  # chance from which a person is told
MAX_REGIONS = 3  # that are named
MAX_CUTS = 30  # ends of a param's range that are looked at
MAX_CHANCE = 0.01  # that a region is one of those which must be found in so many by chance
_SOFT = 0.5  # added to both sides of the votes, so that all of them are no certainty


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A part of the space where runs fail.

    Attributes:
        said: As people write it: `batch_size>=512`, with ` and ` between two.
        n_failed: Runs in it that failed.
        n_runs: All runs in it.
    """

    said: str
    n_failed: int
    n_runs: int

    @property
    def sentence(self) -> str:
        """With its evidence."""
        return f"{self.said} (failed {self.n_failed} of {self.n_runs})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """What past runs say of failing.

    Attributes:
        base: Share of the runs that failed.
        regions: Where they fail, the surest first.
        encoder: Makes X.
        forest: A fitted `ExtraTreesClassifier`; None where failures tell nothing of configurations.
        slope: Of the calibration, on the votes' log odds.
        intercept: Likewise.
    """

    base: float
    regions: tuple[Region, ...] = ()
    encoder: Encoder | None = None
    forest: Any = None
    slope: float = 0.0
    intercept: float = 0.0

    @property
    def has_signal(self) -> bool:
        """Whether some configurations are known to fail more often than others."""
        return self.forest is not None

    def chance(self, frame: pd.DataFrame) -> Vector:
        """Of each of n configurations in its context, `(n,)`; as many as `base` without signal."""
        if self.forest is None or self.encoder is None or frame.empty:
            return np.full(len(frame), self.base)
        votes = self.forest.predict_proba(self.encoder.encode(frame))[:, 1]
        return _calibrated(votes, self.slope, self.intercept)

    def is_notable(self, chance: float) -> bool:
        """Whether a person should know: more than `NOTABLE`, and than twice what is usual."""
        return self.has_signal and chance > NOTABLE and chance > min(2 * self.base, 0.5)


def learn_failures(finished: pd.DataFrame, failed: pd.DataFrame, space: SearchSpace) -> Failures:
    """What runs that failed, and those that finished, say of failing.

    Args:
        finished: Frame of `params.<name>`, and context where there is some.
        failed: Likewise. Runs that have not logged all that they should have, since they failed
            before, are left out: what is missing would tell all.
        space: What configurations are.

    Returns:
        With the chance for each configuration; or, where failures do not hang on configurations or
        are too few to tell, with the same for all.
    """
    n = len(finished) + len(failed)
    nothing = Failures(base=len(failed) / n if n else 0.0)
    finished = finished.tail(MAX_RUNS)
    failed = failed[_are_whole(failed, finished, space)].tail(MAX_RUNS)
    if min(len(failed), len(finished)) < MIN_RUNS:
        return nothing
    rows = pd.concat([finished, failed], ignore_index=True)
    y = np.arange(len(rows)) >= len(finished)
    encoder = _encoder(rows, finished, failed, space)
    if not encoder.columns:
        return nothing
    forest, votes = _fitted(encoder.encode(rows), y)
    slope, intercept = _calibration(votes, y)
    if slope <= 0 or not _is_better(_calibrated(votes, slope, intercept), y):
        return nothing
    return replace(
        nothing,
        regions=tuple(_regions(rows, y, space)),
        encoder=encoder,
        forest=forest,
        slope=slope,
        intercept=intercept,
    )


def _are_whole(failed: pd.DataFrame, finished: pd.DataFrame, space: SearchSpace) -> Mask:
    """Which failed runs have logged what every finished one would have, `(n,)`."""
    done = [config_of(row) for row in finished.to_dict("records")]
    always = [
        name
        for name, param in space.params.items()
        if all(name in config for config in done if is_active(param.when, config))
    ]
    return np.array(
        [
            all(name in c for name in always if is_active(space.params[name].when, c))
            for c in (config_of(row) for row in failed.to_dict("records"))
        ],
        dtype=bool,
    )


def _encoder(
    rows: pd.DataFrame, finished: pd.DataFrame, failed: pd.DataFrame, space: SearchSpace
) -> Encoder:
    """What was chosen and given, not whether it was logged: a run that dies logs less."""

    def is_known(source: str) -> bool:
        return all(source in frame and frame[source].notna().all() for frame in (finished, failed))

    learned = Encoder.learn(rows, space)
    kept = [
        column
        for column in learned.columns
        if column.kind != "set"
        and (
            column.source.startswith("params.")
            or (column.source.startswith(("hardware.", "dataset.")) and is_known(column.source))
        )
    ]
    return replace(learned, columns=tuple(kept))


def _fitted(X: Matrix, y: Mask) -> tuple[Any, Vector]:
    """A forest, and for each of `X (n, d)` the votes of the trees that have not seen it, `(n,)`."""
    from sklearn.ensemble import ExtraTreesClassifier

    forest = ExtraTreesClassifier(
        N_TREES, min_samples_leaf=2, bootstrap=True, oob_score=True, random_state=0
    ).fit(X, y)
    return forest, np.nan_to_num(forest.oob_decision_function_[:, 1], nan=float(y.mean()))


def _odds(votes: Vector) -> Vector:
    """The votes' log odds."""
    return np.asarray(logit((votes * N_TREES + _SOFT) / (N_TREES + 2 * _SOFT)))


def _calibration(votes: Vector, y: Mask) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    line = LogisticRegression().fit(_odds(votes)[:, None], y)
    return float(line.coef_[0, 0]), float(line.intercept_[0])


def _calibrated(votes: Vector, slope: float, intercept: float) -> Vector:
    return np.asarray(expit(slope * _odds(votes) + intercept))


def _is_better(chance: Vector, y: Mask) -> bool:
    """Whether chances predict `y (n,)` surely better than its mean does, by their logarithms."""
    base = float(y.mean())
    gain = np.where(y, np.log(chance / base), np.log((1 - chance) / (1 - base)))
    error = float(gain.std(ddof=1)) / np.sqrt(len(y))
    return bool(gain.mean() - N_CALIBRATED / len(y) > SURE * error)


def _regions(rows: pd.DataFrame, y: Mask, space: SearchSpace) -> list[Region]:
    """The regions where runs fail, the surest first; each of what earlier ones have left."""
    configs = [config_of(row) for row in rows.to_dict("records")]
    edges = _edges(configs, space)
    left = np.ones(len(y), dtype=bool)
    found: list[Region] = []
    while edges and len(found) < MAX_REGIONS:
        best = _surest(edges, y, left)
        if best is None:
            break
        said, inside = best
        n_failed, n_runs = int((inside & y).sum()), int(inside.sum())
        found.append(Region(said=said, n_failed=n_failed, n_runs=n_runs))
        left &= ~inside
    return found


def _edges(configs: Sequence[Config], space: SearchSpace) -> dict[str, Mask]:
    """Everything that one param may be asked, as people write it -> where it is so, `(n,)`."""
    edges: dict[str, Mask] = {}
    for name, param in space.params.items():
        values = [config.get(name) for config in configs]
        if isinstance(param, Categorical) and not param.is_ordered:
            for choice in param.choices:
                edges[f"{name}={choice}"] = np.array([same(v, choice) for v in values])
            continue
        numbers = np.array([float(v) if is_number(v) else np.nan for v in values])
        known = np.unique(numbers[np.isfinite(numbers)])
        places = np.unique(np.linspace(0, len(known) - 1, MAX_CUTS).astype(int))
        for cut in known[places] if len(known) > 1 else ():
            for relation, mask in ((">=", numbers >= cut), ("<=", numbers <= cut)):
                edges[f"{name}{relation}{_digits(cut, relation, numbers, mask)}"] = mask
    return edges


def _digits(cut: float, relation: str, numbers: Vector, mask: Mask) -> str:
    """`cut` with no more than 6 digits, where that says the same of all numbers; else in full."""
    short = f"{cut:.6g}"
    said = numbers >= float(short) if relation == ">=" else numbers <= float(short)
    if np.array_equal(said, mask):
        return short
    return str(int(cut)) if cut.is_integer() else repr(float(cut))


def _surest(edges: Mapping[str, Mask], y: Mask, left: Mask) -> tuple[str, Mask] | None:
    """The edge, or two of them, that part failing runs best from others; None if none is sure."""
    from scipy.stats import hypergeom  # slow to import

    words, masks = list(edges), np.array(list(edges.values())) & left
    gains = _gains(masks, y, left)
    first = int(np.argmax(gains))
    said, inside, gain, n_asked = words[first], masks[first], gains[first], len(words)
    for i in np.argsort(-gains, kind="stable")[:20]:
        both = masks & masks[i]
        more = _gains(both, y, left)
        second = int(np.argmax(more))
        if more[second] > gain + np.log(len(y)):  # what a second edge has to earn (BIC)
            said, inside, gain = f"{words[i]} and {words[second]}", both[second], more[second]
            n_asked = len(words) * 20
    n, n_failed = int(left.sum()), int((y & left).sum())
    drawn = hypergeom.sf(int((inside & y).sum()) - 1, n, n_failed, int(inside.sum()))
    return (said, inside) if gain > 0 and drawn * n_asked <= MAX_CHANCE else None


def _gains(masks: NDArray[np.bool_], y: Mask, left: Mask) -> Vector:
    """By how much each of `masks (m, n)` makes failures more likely, in nats, `(m,)`.

    0 where fewer than half of its runs fail, or no more than of the others.
    """
    n_in, k_in = masks.sum(axis=1), (masks & y).sum(axis=1)
    n_out, k_out = left.sum() - n_in, (y & left).sum() - k_in
    rate_in, rate_out = k_in / np.maximum(n_in, 1), k_out / np.maximum(n_out, 1)
    gain = _fit(k_in, n_in) + _fit(k_out, n_out) - _fit(k_in + k_out, n_in + n_out)
    return np.where((rate_in >= 0.5) & (rate_in > rate_out), gain, 0.0)


def _fit(k: NDArray[np.int64], n: NDArray[np.int64]) -> Vector:
    """The log-likelihood of k of n under their own share."""
    share = k / np.maximum(n, 1)
    return np.asarray(xlogy(k, share) + xlogy(n - k, 1 - share))
