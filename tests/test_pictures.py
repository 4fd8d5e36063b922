"""Pictures: what is drawn can be read."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlflow_meta import pictures
from mlflow_meta.explain import Explanation
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import Direction, Objective

OBJECTIVE = Objective(metric="val_loss", direction=Direction.MINIMIZE)
CHOICES = ("tree", "multilayer", "transformer", "linear", "forest")
SPANS = [(1e-5, 1.0), (0.5, 0.9), (0.11, 0.29), (2.0, 40.0)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are made, before they are bytes."""
    figures: list[Figure] = []
    monkeypatch.setattr(pictures, "_png", figures.append)
    return figures


def readable(axis: Axis) -> list[str]:
    """The labels in sight, of which no two may overlap where they lie straight."""
    renderer = axis.get_figure(root=True).canvas.get_renderer()
    low, high = sorted(axis.get_view_interval())
    shown = [
        tick.label1
        for tick in axis.get_major_ticks()
        if low <= tick.get_loc() <= high and tick.label1.get_text()
    ]
    if all(label.get_rotation() == 0 for label in shown):
        boxes = [label.get_window_extent(renderer) for label in shown]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    return [label.get_text() for label in shown]


def test_the_labels_of_what_params_do_are_two_or_more_and_do_not_overlap(
    drawn: list[Figure],
) -> None:
    spec: dict[str, dict[str, object]] = {
        f"x{i}": {"type": "float", "low": a, "high": b, "log": True}
        for i, (a, b) in enumerate(SPANS)
    }
    spec |= {f"c{n}": {"type": "categorical", "choices": list(CHOICES[:n])} for n in (2, 5)}
    curves = {}
    for i, (a, b) in enumerate(SPANS):
        curves[f"x{i}"] = curve(np.geomspace(a, b, 9).tolist())
    curves |= {f"c{n}": curve(list(CHOICES[:n])) for n in (2, 5)}
    table = pd.DataFrame({"param": list(spec), "permutation": 0.1, "ped_anova": 0.1, "n": 9})
    found = Explanation(importance=table, curves=curves)
    pictures.explanation(found, SearchSpace.from_dict(spec), OBJECTIVE, "sweep")
    (figure,) = drawn
    FigureCanvasAgg(figure).draw()
    small = [axes for axes in figure.axes if axes.get_xlabel() in spec]
    assert len(small) == len(spec)
    for axes in small:
        assert len(readable(axes.xaxis)) >= 2, axes.get_xlabel()
    straight, leaning = (
        {label.get_rotation() for axes in small if axes.get_xlabel() == name
         for label in axes.get_xticklabels()} for name in ("c2", "c5")
    )  # fmt: skip
    assert (straight, leaning) == ({0}, {45})


def curve(at: list[object]) -> pd.DataFrame:
    return pd.DataFrame({"at": pd.Series(at, dtype=object), "mean": 0.5, "low": 0.4, "high": 0.6})


@pytest.mark.parametrize("n_before", [0, 3, 40])
def test_progress_has_what_waits_whole_numbers_of_runs_and_all_predictions(
    n_before: int, drawn: list[Figure]
) -> None:
    times = pd.date_range("2026-01-01", periods=n_before + 2, freq="h", tz="UTC")
    history = pd.DataFrame({"start_time": times[:n_before], "got": np.linspace(0.9, 0.5, n_before)})
    ours = pd.DataFrame(
        {
            "start_time": [times[-2], times[-1], pd.NaT],
            "got": [0.45, np.nan, np.nan],
            "predicted": [0.4, 0.35, 0.3],
            "low": [0.3, 0.3, -50.0],
            "high": [0.5, 0.5, 99.0],
        }
    )
    pictures.progress(history, ours, OBJECTIVE)
    (figure,) = drawn
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert all(float(text) == int(float(text)) for text in readable(axes.xaxis))
    low, high = axes.get_ylim()
    assert -50 < low < 0.3 and 0.5 < high < 99, "the odd interval ends in arrows"
    points = {part.get_label(): part.get_offsets() for part in axes.collections}
    waits = np.asarray(points["suggested, waits"])
    assert waits.tolist() == [[n_before + 2, 0.35], [n_before + 3, 0.3]]
    assert np.asarray(points["suggested, got"]).tolist() == [[n_before + 1, 0.45]]


def test_a_front_has_every_run_and_every_rank_and_a_wide_objective_on_a_log_scale(
    drawn: list[Figure],
) -> None:
    rng = np.random.default_rng(0)
    seen = pd.DataFrame(
        {"val_loss": rng.uniform(0.1, 1, 30), "duration": 10 ** rng.uniform(0, 4, 30)}
    )
    suggested = pd.DataFrame({"val_loss": [0.2, 0.1], "duration": [9.0, 900.0], "rank": [1, 2]})
    both = dict.fromkeys(["val_loss", "duration"], Direction.MINIMIZE)
    pictures.front(seen.assign(front=[1, *[2] * 29]), suggested, both)
    (axes,) = drawn[0].axes
    assert [len(points.get_offsets()) for points in axes.collections] == [30, 1, 2]
    assert [text.get_text() for text in axes.texts] == ["1", "2"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert axes.get_xlabel() == "duration in s (low is good)"
