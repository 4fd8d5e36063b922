"""Tests for models/signal.py."""

import numpy as np

from mlflow_meta.models.signal import ACCEPTED, p_value


def test_chance_is_accepted_as_often_as_it_should_be_and_a_relation_always() -> None:
    rng, tasks = np.random.default_rng(0), np.array(["a"] * 15 + ["b"] * 15, dtype=object)
    y, noise = rng.normal(size=(100, 30)), rng.normal(size=(100, 30))
    assert (
        np.mean([p_value(tasks, *pair) <= ACCEPTED for pair in zip(y, noise, strict=True)]) <= 0.1
    )
    assert all(p_value(tasks, a, a + b) <= ACCEPTED for a, b in zip(y, 0.5 * noise, strict=True))
