"""Tests for mlflow_meta/optuna: Optuna's own suite for samplers, and what past trials are for."""

from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from mlflow_meta.optuna import MetaSampler

optuna.logging.set_verbosity(optuna.logging.WARNING)


class TestMetaSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    """Every case of Optuna's suite that a sampler of one objective can pass."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: MetaSampler(seed=0)
