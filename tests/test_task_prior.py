"""Tests for models/task_prior.py, kernel.py and pooled.py: by brute force and by chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from mlflow_meta.models.kernel import map_estimate, negative_log_likelihood, polynomials
from mlflow_meta.models.pooled import Pooled, pooled_kernel
from mlflow_meta.models.source import Source, learn_source
from mlflow_meta.models.task_prior import Inputs, Setting, TaskPosterior, log_evidence

D = 3
GROUPS = np.arange(D)


def slope(X: np.ndarray, turn: float) -> np.ndarray:
    """Tasks of one family: which of the first two columns matters, turns from task to task."""
    return 2.0 * (np.cos(turn) * X[:, 0] + np.sin(turn) * X[:, 1]) - 1.4 + 0.3 * np.sin(6 * X[:, 2])


def source(turn: float, n: int = 25) -> Source:
    X = np.random.default_rng(int(100 * turn)).random((n, D))
    return learn_source(X, slope(X, turn), GROUPS)


SOURCES = [source(turn) for turn in (0.2, 0.6, 1.0, 1.4)]


def posterior(n: int, *, turn: float = 0.7, sources: list[Source] = SOURCES) -> TaskPosterior:
    X = np.random.default_rng(7).random((n, D))
    return TaskPosterior(sources, X, slope(X, turn), GROUPS, seed=0)


AT = np.random.default_rng(8).random((15, D))


def conditioned(X: np.ndarray, y: np.ndarray, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance at `AT` by the plain formula for a partitioned normal vector."""
    both = np.vstack([X, AT])
    each = np.stack([s.mean(both) for s in SOURCES])
    m, n = each.mean(axis=0), len(X)
    d = np.vstack([(each - m) / np.sqrt(len(SOURCES) - 1), m / np.sqrt(len(SOURCES))])
    inputs = Inputs(both, m, d, polynomials(both, GROUPS).T)
    joint = setting.covariance(inputs, inputs)
    inverse = np.linalg.inv(joint[:n, :n] + setting.noise_variance * np.eye(n))
    mean = m[n:] + joint[n:, :n] @ inverse @ (setting.stretch * y - m[:n])
    covariance = joint[n:, n:] - joint[n:, :n] @ inverse @ joint[:n, n:]
    return mean / setting.stretch, covariance / setting.stretch**2


def test_the_posterior_is_the_brute_force_mixture_over_its_settings() -> None:
    X = np.random.default_rng(7).random((12, D))
    y = slope(X, 0.7)
    found = posterior(12)
    parts = [(w, s, *conditioned(X, y, s)) for s, w in found.settings]
    assert sum(w for w, *_ in parts) == pytest.approx(1.0)
    mean = sum(w * m for w, _, m, _ in parts)
    square = sum(w * (m**2 + np.diag(c) + s.noise_variance / s.stretch**2) for w, s, m, c in parts)
    predicted = found.predict(AT)
    np.testing.assert_allclose(predicted.mean, mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(predicted.std**2, square - mean**2, rtol=1e-4, atol=1e-6)


def test_joint_draws_have_the_posteriors_mean_and_covariance() -> None:
    X = np.random.default_rng(7).random((12, D))
    found = posterior(12)
    draws = found.sample(AT, 60_000, np.random.default_rng(0))
    parts = [(w, *conditioned(X, slope(X, 0.7), s)) for s, w in found.settings]
    mean = sum(w * m for w, m, _ in parts)
    covariance = sum(w * (c + np.outer(m - mean, m - mean)) for w, m, c in parts)
    assert draws.shape == (60_000, len(AT))
    scale = np.sqrt(np.diag(covariance).max())
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.02 * scale)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.03 * scale**2)


def test_the_evidence_is_the_density_of_the_scores() -> None:
    rng = np.random.default_rng(0)
    X, y, m, d = rng.random((8, D)), rng.normal(size=8), rng.normal(size=8), rng.normal(size=(2, 8))
    setting = Setting(0.7, 0.4, 0.1, np.full(D, 0.5), trend=1.3)
    p = rng.normal(size=(4, 8))
    inputs = Inputs(X, m, d, p)
    K = setting.covariance(inputs, inputs)
    R = matern_of(X, setting.scales)
    f = 0.7**2 * d.T @ d + 0.4**2 * (R + 1.3**2 * p.T @ p)
    np.testing.assert_allclose(K, f + 4.0)  # and the shift's variance
    noisy = K + setting.noise_variance * np.eye(8)
    stretches = np.array([0.5, 1.0, 1.7])
    constant = 4.0 * np.log(2 * np.pi)
    for b, log in zip(stretches, log_evidence(setting, R, inputs, y, stretches), strict=True):
        density = stats.multivariate_normal(m, noisy).logpdf(b * y) + 8 * np.log(b)
        assert log - constant == pytest.approx(density)


def matern_of(X: np.ndarray, scales: np.ndarray) -> np.ndarray:
    r = np.sqrt(5.0) * np.linalg.norm((X[:, None] - X) / scales, axis=2)
    return (1 + r + r**2 / 3) * np.exp(-r)


def test_without_a_trial_the_expectation_is_the_mean_of_the_sources() -> None:
    prior = posterior(0)
    each = np.stack([s.mean(AT) for s in SOURCES])
    np.testing.assert_allclose(prior.predict(AT).mean, each.mean(axis=0))
    draws = prior.sample(AT, 8000, np.random.default_rng(0))
    for i in range(len(SOURCES)):
        np.testing.assert_allclose(draws[i :: len(SOURCES)].mean(axis=0), each[i], atol=0.05)


def errors(found: TaskPosterior, turn: float) -> float:
    """Error in the order of `AT`, 0 for a perfect one."""
    truth = slope(AT, turn)
    return 1.0 - float(stats.spearmanr(found.predict(AT).mean, truth).statistic)


def test_few_trials_tell_more_with_tasks_that_are_alike_than_without() -> None:
    with_tasks = posterior(5, turn=0.7)
    assert errors(with_tasks, 0.7) < 0.5 * errors(posterior(5, turn=0.7, sources=[]), 0.7)


@pytest.mark.parametrize("n_sources", [1, 4])
def test_many_trials_outvote_tasks_that_are_the_reverse(n_sources: int) -> None:
    turn = 0.7 + np.pi  # what is good there is bad here
    assert errors(posterior(0, turn=turn), turn) > 1.5
    assert errors(posterior(40, turn=turn, sources=SOURCES[:n_sources]), turn) < 0.1


def test_a_source_is_learned_once_and_told_by_its_content() -> None:
    X, y = np.random.default_rng(0).random((9, D)), np.arange(9.0)
    assert learn_source(X, y, GROUPS) is learn_source(X.copy(), y.copy(), GROUPS)
    assert learn_source(X, y, GROUPS) is not learn_source(X, -y, GROUPS)


def test_the_likelihood_has_the_gradient_of_finite_differences() -> None:
    rng = np.random.default_rng(0)
    X, y, group_of = rng.random((12, 4)), rng.normal(size=12), np.array([0, 1, 1, 2])
    at = np.log(np.array([0.5, 0.8, 0.4, 1.3, 0.1, 0.6]))
    P = polynomials(X, group_of)
    products = P @ P.T
    by_hand = optimize.approx_fprime(
        at, lambda logs: negative_log_likelihood(logs, X, y, group_of, products)[0], 1e-6
    )
    gradient = negative_log_likelihood(at, X, y, group_of, products)[1]
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-3, atol=1e-4)


def test_columns_of_one_group_share_a_length_scale() -> None:
    rng = np.random.default_rng(0)
    X = np.eye(4)[rng.integers(4, size=30)]
    found = map_estimate(X, X @ np.array([0.0, 1.0, 2.0, -1.0]), np.array([5, 5, 5, 2]))
    assert found.scales[0] == found.scales[1] == found.scales[2] != found.scales[3]


def test_the_polynomials_are_orthonormal_over_the_unit_cube_and_have_unit_variance_in_all() -> None:
    X = np.random.default_rng(0).random((200_000, 3))
    X[:, 1:] = X[:, 1:] > 0.5  # a category of two choices, in columns of one group
    P = polynomials(X, np.array([4, 7, 7]))
    assert P.shape == (len(X), 4)  # both degrees of the number, the first of each choice
    products = P.T @ P / len(X)
    assert products[0, 0] == pytest.approx(1 / 4, abs=0.003)
    assert products[3, 3] == pytest.approx(1 / 4, abs=0.003)
    np.testing.assert_allclose(products - np.diag(np.diag(products)), 0, atol=0.003)
    numbers = polynomials(X[:, :1], np.array([0]))
    assert (numbers**2).sum(axis=1).mean() == pytest.approx(1.0, abs=0.01)


def test_a_valley_in_a_dozen_params_is_told_by_forty_trials() -> None:
    # By the trend: without it the correlation is 0.6 here.
    rng = np.random.default_rng(0)
    X, at, bottom = rng.random((40, 12)), rng.random((200, 12)), rng.uniform(0.2, 0.8, 12)
    losses = [((inputs - bottom) ** 2).sum(axis=1) for inputs in (X, at)]
    alone = TaskPosterior([], X, stats.zscore(losses[0]), np.arange(12), seed=0)
    assert np.corrcoef(alone.predict(at).mean, losses[1])[0, 1] > 0.99


def test_pooled_tasks_tell_one_that_differs_in_its_place_only_from_a_few_trials() -> None:
    rng = np.random.default_rng(0)
    tasks = []
    for shift in (-1.0, 0.0, 2.0):
        X = rng.random((40, D))
        tasks.append((X, slope(X, 0.7) + shift))
    X = rng.random((2, D))
    own = (X, slope(X, 0.7) + 1.0)
    kernel = pooled_kernel(tasks, GROUPS, seed=0)
    assert kernel.scales.shape == (D + len(tasks),)
    pooled = Pooled(own, tasks, GROUPS, kernel, seed=0)
    error = pooled.mean(AT) - slope(AT, 0.7) - 1.0
    assert np.abs(error).max() < 0.3
    reverse = Pooled((X, -own[1]), tasks, GROUPS, kernel, seed=0)  # its own trials are heard
    assert (reverse.mean(X) < pooled.mean(X)).all()
