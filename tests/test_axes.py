"""Axes hold what is on them, by one rule for pictures and pages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_meta.axes import WIDE, Range, is_wide, time_unit, value_range

numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)


@given(points=numbers, ends=numbers)
def test_every_point_is_on_the_axis(points: list[float], ends: list[float]) -> None:
    found = value_range(points, ends)
    assert found.low < found.high
    assert found.low <= min(points) and max(points) <= found.high
    assert found.log == is_wide(points)
    assert found.low > 0 or not found.log


def test_a_scale_is_logarithmic_from_one_width_on() -> None:
    assert is_wide([1.0, WIDE])
    assert not is_wide([1.0, 0.99 * WIDE])
    assert not is_wide([0.0, 1e6]) and not is_wide([]) and not is_wide([np.nan])


def length(axis: Range) -> float:
    """On its own scale."""
    return float(np.log10(axis.high / axis.low)) if axis.log else axis.high - axis.low


@pytest.mark.parametrize("factor", [1.0, 1e3])
def test_usual_intervals_are_whole_and_one_that_is_far_wider_flattens_nothing(
    factor: float,
) -> None:
    points = np.array([1.0, 1.1, 1.2, 1.3 * factor])
    ends = np.concatenate([points / 2, points * 2])
    usual = value_range(points, ends)
    assert usual.low <= ends.min() and ends.max() <= usual.high
    odd = value_range(points, [*ends, -1e9, 1e12])
    assert length(odd) < 2 * length(usual)


@pytest.mark.parametrize(
    ("seconds", "unit", "size"),
    [(0.0, "s", 1), (0.72, "s", 1), (119, "s", 1), (120, "min", 60), (7200, "h", 3600)],
)
def test_a_time_has_the_unit_in_which_it_can_be_read(seconds: float, unit: str, size: int) -> None:
    assert time_unit(seconds) == (unit, size)
