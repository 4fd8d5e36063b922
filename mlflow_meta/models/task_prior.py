"""What other tasks teach about one: a Gaussian process whose prior is the other tasks.

Every other task has a Gaussian process of its own, of which only the mean is used: a source. The
target's function f, on the sources' scale, and what was observed of it:

    f(x) = m(x) + tau * d(x)' w + lambda * g(x),   w ~ N(0, I)
    b * y_i = f(x_i) + a + lambda * noise_i,   a ~ N(0, 4)

m_s, m:  `(n,)` the S sources and their mean; 0 where there is none
d:       `(S + 1, n)` (m_s - m) / sqrt(S - 1), whose products are the sources' covariance; and
         m / sqrt(S), since the mean itself is known from S tasks only
g:       a process of covariance matern(|x - x'|)
a, b:    the target's scores are relative to its own trials, which may all be good ones
K:       `(n, n)` prior covariance of the observations b * y
score:   lower is better

Without a trial of the target this is the empirical prior over tasks; with few, they tell which
tasks it is like; with many they outvote it. What is not known (`Setting`) is weighed by its
marginal likelihood on a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from mlflow_meta.models.kernel import JITTER, correlation
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
_STRETCHES = np.geomspace(0.2, 2.0, 12)  # b


@dataclass(frozen=True, slots=True)
class Setting:
    """What the model leaves open: one point of the grid.

    Attributes:
        tau: How far the target may be from the mean of the sources, in their own spread.
        lambda_: Standard deviation of g.
        noise: Variance of an observation relative to that of g.
        scales: g's length scales, `(d,)`.
        stretch: b.
    """

    tau: float
    lambda_: float
    noise: float
    scales: Vector
    stretch: float = 1.0

    def covariance(self, A: Matrix, d_A: Matrix, B: Matrix, d_B: Matrix) -> Matrix:
        """Prior covariance `(n, m)` of f + a at `A (n, d)` and `B (m, d)`."""
        residual = self.lambda_**2 * correlation(A, B, self.scales)
        return np.asarray(self.tau**2 * d_A.T @ d_B + residual + _SHIFT)

    @property
    def noise_variance(self) -> float:
        """Variance of an observation b * y."""
        return self.lambda_**2 * self.noise + JITTER


@dataclass(frozen=True, slots=True)
class _Solved:
    """A setting with its share of the weight, the Cholesky factor L of K, and L^-1 (b y - m)."""

    setting: Setting
    weight: float
    factor: Matrix
    whitened: Vector


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
        self._learn = learn
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.permutation(len(y))[:MAX_ROWS])
        self._sources, self._X, self._y = sources, X[rows], y[rows]
        self._m, self._d = self._features(self._X)
        some = rng.permutation(len(rows))[:MAX_WEIGHED]
        self._solved = [
            self._solve(setting, weight) for setting, weight in self._weigh(some, groups)
        ]

    @property
    def settings(self) -> list[tuple[Setting, float]]:
        """The settings that are averaged over, each with its share of the weight."""
        return [(solved.setting, solved.weight) for solved in self._solved]

    def predict(self, X: Matrix) -> Prediction:
        """Scores at `X (m, d)` relative to the target's own; of a mixture over the settings."""
        m, d = self._features(X)
        means, variances = [], []
        for solved in self._solved:
            s = solved.setting
            v = self._explained(solved, X, d)
            prior = s.tau**2 * (d**2).sum(axis=0) + s.lambda_**2 + (_SHIFT if len(self._y) else 0)
            left = np.maximum(prior - (v**2).sum(axis=0), 0.0) + s.noise_variance
            means.append((m + solved.whitened @ v) / s.stretch)
            variances.append(left / s.stretch**2)
        weights = np.array([solved.weight for solved in self._solved])
        mean = weights @ np.array(means)
        variance = weights @ (np.array(variances) + (np.array(means) - mean) ** 2)
        return Prediction(mean, np.sqrt(variance))

    def sample(self, X: Matrix, n_draws: int, rng: np.random.Generator) -> Matrix:
        """Joint draws `(n_draws, m)` of the function at `X (m, d)`, without noise.

        Without a trial of the target each draw is around one of the sources, in turn.
        """
        m, d = self._features(X)
        if not len(self._y):
            return self._prior_draws(X, n_draws, rng)
        weights = [solved.weight for solved in self._solved]
        counts = np.diff(np.round(np.cumsum([0.0, *weights]) * n_draws)).astype(int)
        draws = []
        for solved, count in zip(self._solved, counts, strict=True):
            v = self._explained(solved, X, d)
            covariance = solved.setting.covariance(X, d, X, d) - v.T @ v
            mean = m + solved.whitened @ v
            away = rng.standard_normal((count, len(X))) @ _root(covariance).T
            draws.append((mean + away) / solved.setting.stretch)
        return np.concatenate(draws)

    def _prior_draws(self, X: Matrix, n_draws: int, rng: np.random.Generator) -> Matrix:
        setting = self._solved[0].setting
        root = setting.lambda_ * _root(correlation(X, X, setting.scales))
        means = np.stack([source.mean(X) for source in self._sources])
        around = means[np.arange(n_draws) % len(means)]
        return np.asarray(around + rng.standard_normal((n_draws, len(X))) @ root.T)

    def _features(self, X: Matrix) -> tuple[Vector, Matrix]:
        """The features m `(n,)` and d `(S + 1, n)` at `X (n, d)`."""
        if not self._sources:
            return np.zeros(len(X)), np.zeros((1, len(X)))
        each = np.stack([source.mean(X) for source in self._sources])
        m = each.mean(axis=0)
        away = (each - m) / np.sqrt(max(len(each) - 1, 1))
        return m, np.vstack([away, m / np.sqrt(len(each))])

    def _explained(self, solved: _Solved, X: Matrix, d: Matrix) -> Matrix:
        """L^-1 k `(n, m)`, whose squares are the variance that the trials take off."""
        k = solved.setting.covariance(self._X, self._d, X, d)
        return np.asarray(solve_triangular(solved.factor, k, lower=True))

    def _solve(self, setting: Setting, weight: float) -> _Solved:
        K = setting.covariance(self._X, self._d, self._X, self._d)
        K[np.diag_indices_from(K)] += setting.noise_variance
        factor = np.asarray(np.linalg.cholesky(K))
        whitened = solve_triangular(factor, setting.stretch * self._y - self._m, lower=True)
        return _Solved(setting, weight, factor, np.asarray(whitened))

    def _weigh(self, rows: NDArray[np.int64], groups: Groups) -> list[tuple[Setting, float]]:
        """Up to `N_SETTINGS` settings with their weights, of the grid's posterior on `rows`."""
        if not len(rows):
            known = bool(self._sources)
            scales = self._shared_scales() if known else np.ones(self._X.shape[1])
            return [(Setting(1.0, _LAMBDA_PRIOR if known else 1.0, 0.03, scales), 1.0)]
        grid = self._grid(groups)
        stretches = _STRETCHES if self._sources else np.ones(1)
        R = {id(s.scales): correlation(self._X[rows], self._X[rows], s.scales) for s in grid}
        y, m, d = self._y[rows], self._m[rows], self._d[:, rows]
        logs = np.array([log_evidence(s, R[id(s.scales)], d, m, y, stretches) for s in grid])
        weights = np.exp(logs - logsumexp(logs)).ravel()
        # Systematic draws: the i-th of N stands where the i-th part of the weight has its middle.
        order = np.argsort(-weights, kind="stable")
        middles = (np.arange(N_SETTINGS) + 0.5) / N_SETTINGS
        places = np.searchsorted(np.cumsum(weights[order]), middles)
        drawn, counts = np.unique(order[np.minimum(places, len(order) - 1)], return_counts=True)
        chosen = []
        for i, count in zip(drawn, counts, strict=True):
            s, b = grid[i // len(stretches)], float(stretches[i % len(stretches)])
            setting = Setting(s.tau, s.lambda_, s.noise, s.scales, b)
            chosen.append((setting, count / N_SETTINGS))
        return chosen

    def _grid(self, groups: Groups) -> list[Setting]:
        own = []
        if not self._sources or len(self._y) >= MIN_OWN:
            own = [self._learn(self._X, self._y, groups).kernel.scales]
        if not self._sources:
            scales = [own[0] * factor for factor in _FACTORS_ALONE]
            return [Setting(0.0, *rest) for rest in product(_LAMBDAS_ALONE, _NOISES, scales)]
        shared = self._shared_scales()
        scales = [*(shared * factor for factor in _FACTORS), *own]
        return [Setting(*all_) for all_ in product(_TAUS, _LAMBDAS, _NOISES, scales)]

    def _shared_scales(self) -> Vector:
        logs = [np.log(source.kernel.scales) for source in self._sources]
        return np.asarray(np.exp(np.mean(logs, axis=0)))


def log_evidence(
    setting: Setting, R: Matrix, d: Matrix, m: Vector, y: Vector, stretches: Vector
) -> Vector:
    """The log of p(y) under each of k stretches b, `(k,)`, without its constant.

    With b y ~ N(m, K), p(y) = b^n N(b y; m, K), where K is the same for all b.
    """
    K = setting.tau**2 * d.T @ d + setting.lambda_**2 * R + _SHIFT
    K[np.diag_indices_from(K)] += setting.noise_variance
    factor = np.linalg.cholesky(K)
    white_y, white_m = solve_triangular(factor, np.column_stack([y, m]), lower=True).T
    squares = ((stretches[:, None] * white_y - white_m) ** 2).sum(axis=1)
    logs = -0.5 * squares - np.log(np.diag(factor)).sum() + len(y) * np.log(stretches)
    return np.asarray(logs)


def _root(covariance: Matrix) -> Matrix:
    """R with R R' = `covariance`, but for a lift that makes up for rounding."""
    lift = 1e-6 * np.diag(covariance).mean() + JITTER
    return np.linalg.cholesky(covariance + lift * np.eye(len(covariance)))
