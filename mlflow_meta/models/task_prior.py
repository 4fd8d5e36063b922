"""What other tasks teach about one: a Gaussian process whose prior is the other tasks.

Every other task has a Gaussian process of its own, of which only the mean is used: a source. The
target's function f, on the sources' scale, and what was observed of it:

    f(x) = m(x) + tau * d(x)' w + lambda * (g(x) + trend * p(x)' v),   w, v ~ N(0, I)
    b * y_i = f(x_i) + a + lambda * noise_i,   a ~ N(0, 4)

m_s, m:  `(n,)` the S sources and their mean; 0 where there is none
d:       `(S + 1, n)` (m_s - m) / sqrt(S - 1), whose products are the sources' covariance; and
         m / sqrt(S), since the mean itself is known from S tasks only
g:       a process of covariance matern(|x - x'|)
p:       `(k, n)` the polynomials of `models.kernel`; of two valleys that lie apart the difference
         is a slope, which these see from one end of the space to the other
a, b:    the target's scores are relative to its own trials, which may all be good ones
K:       `(n, n)` prior covariance of the observations b * y
score:   lower is better

Without a trial of the target this is the empirical prior over tasks; with few, they tell which
tasks it is like; with many they outvote it. What is not known (`Setting`) is weighed by its
marginal likelihood on a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dtrtrs
from scipy.special import logsumexp

from mlflow_meta.models.kernel import JITTER, Hyperparameters, correlation, polynomials
from mlflow_meta.models.regressor import Groups, Matrix, Prediction, Vector
from mlflow_meta.models.source import Source, learn_source

Learn = Callable[[Matrix, Vector, Groups], Source]

MAX_ROWS = 800  # of the target: the time grows with their cube
MAX_WEIGHED = 120  # rows of the target on which the settings are weighed
MIN_OWN = 20  # rows of the target from which its own length scales are tried as well
N_SETTINGS = 6  # drawn of the grid

_SHIFT = 4.0  # variance of a
_TAUS = (0.5, 1.0, 2.0)
_LAMBDAS = (0.1, 0.25, 0.5, 1.0)
_LAMBDA_PRIOR = 0.6  # without a trial of the target to tell it
_LAMBDAS_ALONE = (0.5, 1.0, 1.5)
_NOISES = (0.003, 0.03, 0.1, 0.3)  # variance of an observation, where that of g is 1
_FACTORS = (0.5, 1.0, 2.0)  # by which g's length scales may differ from the sources'
_FACTORS_ALONE = (0.7, 1.0, 1.5)
_TRENDS_ALONE = (0.5, 1.0, 2.0)  # by which the trend may differ from what was found most plausible
_STRETCHES = np.geomspace(0.2, 2.0, 12)  # b


@dataclass(frozen=True, slots=True)
class Inputs:
    """Configurations `X (n, d)`, and the features that the model has of them: m, d and p."""

    X: Matrix
    m: Vector
    d: Matrix
    p: Matrix


@dataclass(frozen=True, slots=True)
class Setting:
    """What the model leaves open: one point of the grid.

    Attributes:
        tau: How far the target may be from the mean of the sources, in their own spread.
        lambda_: Standard deviation of g.
        noise: Variance of an observation relative to that of g.
        scales: g's length scales, `(d,)`.
        trend: Standard deviation of p(x)' v, where that of g is 1.
        stretch: b.
    """

    tau: float
    lambda_: float
    noise: float
    scales: Vector
    trend: float
    stretch: float = 1.0

    def covariance(self, A: Inputs, B: Inputs) -> Matrix:
        """Prior covariance `(n, m)` of f + a at n and m configurations."""
        residual = self.lambda_**2 * correlation(A.X, B.X, self.scales)
        return np.asarray(self.directions(A).T @ self.directions(B) + residual + _SHIFT)

    def directions(self, inputs: Inputs) -> Matrix:
        """What w and v are multiplied with in f, `(S + 1 + k, n)`."""
        return np.vstack([self.tau * inputs.d, self.lambda_ * self.trend * inputs.p])

    @property
    def noise_variance(self) -> float:
        """Variance of an observation b * y."""
        return self.lambda_**2 * self.noise + JITTER


@dataclass(frozen=True, slots=True)
class _Solved:
    """A setting with its share of the weight.

    Attributes:
        setting: Itself.
        weight: Its share.
        factor: `(n, n)` the Cholesky factor L of K.
        whitened: `(n,)` L^-1 (b y - m).
        directions: `(S + 1 + k, n)` those of the trials.
    """

    setting: Setting
    weight: float
    factor: Matrix
    whitened: Vector
    directions: Matrix


class TaskPosterior:
    """The target's function, given the sources and the target's own trials."""

    def __init__(
        self,
        sources: Sequence[Source],
        X: Matrix,
        y: Vector,
        groups: Groups,
        *,
        seed: int,
        learn: Learn = learn_source,
    ) -> None:
        """Takes trials `X (n, d)` with scores `y (n,)`; n may be 0 where there are sources.

        `learn` does what `learn_source` does, and may know it already.
        """
        self._learn, self._groups = learn, groups
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.permutation(len(y))[:MAX_ROWS])
        self._sources, self._y = sources, y[rows]
        self._inputs = self._features(X[rows])
        some = rng.permutation(len(rows))[:MAX_WEIGHED]
        self._solved = [self._solve(setting, weight) for setting, weight in self._weigh(some)]

    @property
    def settings(self) -> list[tuple[Setting, float]]:
        """The settings that are averaged over, each with its share of the weight."""
        return [(solved.setting, solved.weight) for solved in self._solved]

    def predict(self, X: Matrix) -> Prediction:
        """Scores at `X (m, d)` relative to the target's own; of a mixture over the settings."""
        inputs = self._features(X)
        means, variances = [], []
        correlations: dict[int, Matrix] = {}  # by the length scales, which settings share
        for solved in self._solved:
            s = solved.setting
            if id(s.scales) not in correlations:
                correlations[id(s.scales)] = correlation(self._inputs.X, inputs.X, s.scales)
            directions = s.directions(inputs)
            k = solved.directions.T @ directions + s.lambda_**2 * correlations[id(s.scales)]
            v = _whitened(solved.factor, k + _SHIFT)
            prior = (directions**2).sum(axis=0) + s.lambda_**2
            prior += _SHIFT if len(self._y) else 0.0
            left = np.maximum(prior - (v**2).sum(axis=0), 0.0) + s.noise_variance
            means.append((inputs.m + solved.whitened @ v) / s.stretch)
            variances.append(left / s.stretch**2)
        weights = np.array([solved.weight for solved in self._solved])
        mean = weights @ np.array(means)
        variance = weights @ (np.array(variances) + (np.array(means) - mean) ** 2)
        return Prediction(mean, np.sqrt(variance))

    def sample(self, X: Matrix, n_draws: int, rng: np.random.Generator) -> Matrix:
        """Joint draws `(n_draws, m)` of the function at `X (m, d)`, without noise.

        Without a trial of the target each draw is around one of the sources, in turn.
        """
        if not len(self._y):
            return self._prior_draws(X, n_draws, rng)
        inputs = self._features(X)
        weights = [solved.weight for solved in self._solved]
        counts = np.diff(np.round(np.cumsum([0.0, *weights]) * n_draws)).astype(int)
        draws = []
        for solved, count in zip(self._solved, counts, strict=True):
            v = self._explained(solved, inputs)
            covariance = solved.setting.covariance(inputs, inputs) - v.T @ v
            mean = inputs.m + solved.whitened @ v
            away = rng.standard_normal((count, len(X))) @ _root(covariance).T
            draws.append((mean + away) / solved.setting.stretch)
        return np.concatenate(draws)

    def _prior_draws(self, X: Matrix, n_draws: int, rng: np.random.Generator) -> Matrix:
        setting = self._solved[0].setting
        root = setting.lambda_ * _root(correlation(X, X, setting.scales))
        means = np.stack([source.mean(X) for source in self._sources])
        around = means[np.arange(n_draws) % len(means)]
        return np.asarray(around + rng.standard_normal((n_draws, len(X))) @ root.T)

    def _features(self, X: Matrix) -> Inputs:
        """`X (n, d)` with its features."""
        p = polynomials(X, self._groups).T
        if not self._sources:
            return Inputs(X, np.zeros(len(X)), np.zeros((1, len(X))), p)
        each = np.stack([source.mean(X) for source in self._sources])
        m = each.mean(axis=0)
        away = (each - m) / np.sqrt(max(len(each) - 1, 1))
        return Inputs(X, m, np.vstack([away, m / np.sqrt(len(each))]), p)

    def _explained(self, solved: _Solved, inputs: Inputs) -> Matrix:
        """L^-1 k `(n, m)`, whose squares are the variance that the trials take off."""
        k = solved.setting.covariance(self._inputs, inputs)
        return _whitened(solved.factor, k)

    def _solve(self, setting: Setting, weight: float) -> _Solved:
        K = setting.covariance(self._inputs, self._inputs)
        K[np.diag_indices_from(K)] += setting.noise_variance
        factor = np.asarray(np.linalg.cholesky(K))
        whitened = _whitened(factor, setting.stretch * self._y - self._inputs.m)
        return _Solved(setting, weight, factor, whitened, setting.directions(self._inputs))

    def _weigh(self, rows: NDArray[np.int64]) -> list[tuple[Setting, float]]:
        """Up to `N_SETTINGS` settings with their weights, of the grid's posterior on `rows`."""
        if not len(rows):
            if not self._sources:
                scales = np.ones(self._inputs.X.shape[1])
                return [(Setting(1.0, 1.0, 0.03, scales, trend=0.0), 1.0)]
            scales, trend = self._shared()
            return [(Setting(1.0, _LAMBDA_PRIOR, 0.03, scales, trend), 1.0)]
        grid = self._grid()
        stretches = _STRETCHES if self._sources else np.ones(1)
        known, y = self._inputs, self._y[rows]
        part = Inputs(known.X[rows], known.m[rows], known.d[:, rows], known.p[:, rows])
        R = {id(s.scales): correlation(part.X, part.X, s.scales) for s in grid}
        logs = np.array([log_evidence(s, R[id(s.scales)], part, y, stretches) for s in grid])
        weights = np.exp(logs - logsumexp(logs)).ravel()
        # Systematic draws: the i-th of N stands where the i-th part of the weight has its middle.
        order = np.argsort(-weights, kind="stable")
        middles = (np.arange(N_SETTINGS) + 0.5) / N_SETTINGS
        places = np.searchsorted(np.cumsum(weights[order]), middles)
        drawn, counts = np.unique(order[np.minimum(places, len(order) - 1)], return_counts=True)
        chosen = []
        for i, count in zip(drawn, counts, strict=True):
            s, b = grid[i // len(stretches)], float(stretches[i % len(stretches)])
            chosen.append((replace(s, stretch=b), count / N_SETTINGS))
        return chosen

    def _grid(self) -> list[Setting]:
        own = None
        if not self._sources or len(self._y) >= MIN_OWN:
            own = self._learn(self._inputs.X, self._y, self._groups).kernel
        if not self._sources:
            assert own
            scales = [own.scales * factor for factor in _FACTORS_ALONE]
            trends = [_ratio(own) * factor for factor in _TRENDS_ALONE]
            return [Setting(0.0, *a) for a in product(_LAMBDAS_ALONE, _NOISES, scales, trends)]
        shared, trend = self._shared()
        scales = [*(shared * factor for factor in _FACTORS), *([own.scales] if own else [])]
        return [Setting(*all_, trend) for all_ in product(_TAUS, _LAMBDAS, _NOISES, scales)]

    def _shared(self) -> tuple[Vector, float]:
        """Length scales and trend of the sources, their geometric means."""
        kernels = [source.kernel for source in self._sources]
        scales = np.exp(np.mean([np.log(kernel.scales) for kernel in kernels], axis=0))
        return np.asarray(scales), float(np.exp(np.mean([np.log(_ratio(k)) for k in kernels])))


def _whitened(factor: Matrix, B: Matrix) -> Matrix:
    """L^-1 B for the lower factor L `(n, n)` and `B (n, m)`, whose entries are finite.

    By what `solve_triangular` calls, which for few rows takes less time than its checks.
    """
    if not B.size:
        return B
    solved, _ = dtrtrs(factor.T, B, lower=0, trans=1)  # the transpose is as Fortran has it
    return np.asarray(solved)


def _ratio(kernel: Hyperparameters) -> float:
    """The trend's standard deviation, where that of the function around it is 1."""
    return float(np.sqrt(kernel.trend / kernel.amplitude))


def log_evidence(
    setting: Setting, R: Matrix, inputs: Inputs, y: Vector, stretches: Vector
) -> Vector:
    """The log of p(y) under each of k stretches b, `(k,)`, without its constant.

    R is g's correlation at the inputs, `(n, n)`. With b y ~ N(m, K), p(y) = b^n N(b y; m, K),
    where K is the same for all b.
    """
    D = setting.directions(inputs)
    K = D.T @ D + setting.lambda_**2 * R + _SHIFT
    K[np.diag_indices_from(K)] += setting.noise_variance
    factor = np.linalg.cholesky(K)
    white_y, white_m = solve_triangular(factor, np.column_stack([y, inputs.m]), lower=True).T
    squares = ((stretches[:, None] * white_y - white_m) ** 2).sum(axis=1)
    logs = -0.5 * squares - np.log(np.diag(factor)).sum() + len(y) * np.log(stretches)
    return np.asarray(logs)


def _root(covariance: Matrix) -> Matrix:
    """R with R R' = `covariance`, but for a lift that makes up for rounding."""
    lift = 1e-6 * np.diag(covariance).mean() + JITTER
    return np.linalg.cholesky(covariance + lift * np.eye(len(covariance)))
