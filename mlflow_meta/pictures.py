"""Pictures, as PNG files. One theme, units on the axes, legible in grey."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from mlflow_meta import shown
from mlflow_meta.axes import Range, is_wide, value_range
from mlflow_meta.backtest import Backtest
from mlflow_meta.explain import Explanation
from mlflow_meta.models import MetaModel
from mlflow_meta.space import Categorical, SearchSpace
from mlflow_meta.trials import DURATION, Direction, Objective

_GREY, _BLUE, _ORANGE = "#8a8f98", "#1f5fa8", "#d9730d"
_SIZE = (7.0, 4.2)  # inches
_DPI = 110
MAX_BARS = 20  # params in a picture of importance
_MAX_LABEL = 24  # characters of a param's name
_MAX_CHOICE = 12  # of a choice
_MAX_ROW = 24  # of the choices of a small picture side by side, with a gap after each
_MAX_TASK = 40  # of a task
_MAX_TICKS = 6  # of a logarithmic axis


def predicted_against_actual(model: MetaModel, objective: Objective) -> bytes:
    """How well a freshly fitted meta-model predicted trials that were held out, as PNG."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    ends = [min(model.cv_scores.min(), model.cv_predicted.min()),
            max(model.cv_scores.max(), model.cv_predicted.max())]  # fmt: skip
    axes.plot(ends, ends, color=_GREY, linewidth=1, zorder=1)
    axes.scatter(model.cv_predicted, model.cv_scores, s=18, color=_BLUE, alpha=0.7, zorder=2)
    metric = shown.picture(objective.metric, _MAX_LABEL)
    axes.set_xlabel(f"predicted {metric}, standard score (low is good)")
    axes.set_ylabel("actual, standard score within its task")
    axes.set_title(f"Held-out trials: rank correlation {model.cv_spearman:.2f}", fontsize=10)
    return _png(figure)


def candidates(table: pd.DataFrame, baselines: Sequence[str]) -> bytes:
    """The errors of the kinds of model that were compared, as PNG.

    Args:
        table: As `choice.score_table` gives it.
        baselines: Those of its rows that learn nothing.
    """
    ranked = table.sort_values("rmse", ascending=False, ignore_index=True)
    figure = Figure(figsize=(6.4, 0.6 + 0.34 * len(ranked)), layout="constrained")
    axes = figure.add_subplot()
    colors = [_GREY if name in baselines else _BLUE for name in ranked["model"]]
    bars = axes.barh(ranked["model"], ranked["rmse"], color=colors, height=0.65)
    correlations = ["" if pd.isna(r) else f" {r:.2f}" for r in ranked["spearman"]]
    axes.bar_label(bars, correlations, fontsize=8)
    axes.margins(x=0.1)
    axes.set_xlabel("error on held-out runs, standard scores within a task (low is good)")
    axes.set_title("Kinds of model; rank correlation at the bar, grey: no learning", fontsize=10)
    return _png(figure)


def progress(history: pd.DataFrame, suggested: pd.DataFrame, objective: Objective) -> bytes:
    """The metric of every run in the order of training, suggested ones with what was predicted.

    Args:
        history: The runs that were not suggested: `start_time`, `got`.
        suggested: Suggested runs that have ended or wait: `start_time`, `got` (NaN where it
            waits), `predicted`, `low`, `high`.
        objective: Which metric, and which of its values are better.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    runs = pd.concat([history.assign(ours=False), suggested.assign(ours=True)])
    last = runs["got"].isna()  # whoever waits comes after those that have ended
    runs = runs.assign(last=last).sort_values(["last", "start_time"], kind="stable")
    runs = runs.assign(place=np.arange(1, len(runs) + 1))
    ours = runs["ours"].to_numpy(bool)
    got = runs.loc[~runs["last"], "got"].to_numpy(float)
    is_low = objective.direction is Direction.MINIMIZE
    best = (np.minimum if is_low else np.maximum).accumulate(got)
    axes.step(
        np.append(np.arange(1, len(got) + 1), len(runs) + 0.5)[: len(best) + 1],
        np.append(best, best[-1:]),
        where="post",
        color=_GREY,
        linewidth=1.2,
        label="best so far",
    )
    axes.scatter(
        runs.loc[~ours, "place"], runs.loc[~ours, "got"], s=20, color=_GREY, label="runs before"
    )
    on = value_range(
        np.concatenate([got, runs.loc[ours, "predicted"]]) if ours.any() else got,
        runs.loc[ours].filter(["low", "high"]),
    )
    if ours.any():
        _draw_suggested(axes, runs[ours], on)
    axes.set_ylim(on.low, on.high)
    if on.log:
        axes.set_yscale("log")
        _label_decades(axes.yaxis, on.low, on.high)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("run, in the order of training")
    axes.set_ylabel(_metric(objective))
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def _draw_suggested(axes: Axes, runs: pd.DataFrame, on: Range) -> None:
    """Predictions with their intervals, an arrow where one goes on outside; and what runs got."""
    middle = runs["predicted"].to_numpy(float)
    low, high = (runs[side].to_numpy(float) for side in ("low", "high"))
    place = runs["place"].to_numpy(float)
    sides = [np.maximum(middle - np.maximum(low, on.low), 0),
             np.maximum(np.minimum(high, on.high) - middle, 0)]  # fmt: skip
    axes.errorbar(place, middle, yerr=sides, fmt="_", color=_BLUE, capsize=3,
                  label="predicted, with 80% interval")  # fmt: skip
    for outside, edge, marker in ((low < on.low, on.low, "v"), (high > on.high, on.high, "^")):
        axes.scatter(
            place[outside], np.full(outside.sum(), edge), s=26, marker=marker, color=_BLUE,
            clip_on=False, zorder=3,
        )  # fmt: skip
    done = runs["got"].notna().to_numpy()
    if done.any():
        axes.scatter(
            place[done], runs["got"][done], s=34, marker="D", color=_ORANGE, label="suggested, got"
        )
    if not done.all():
        axes.scatter(
            place[~done], middle[~done], s=30, marker="D", facecolor="white", edgecolor=_ORANGE,
            zorder=3, label="suggested, waits",
        )  # fmt: skip


def front(
    seen: pd.DataFrame, suggested: pd.DataFrame, directions: Mapping[str, Direction]
) -> bytes:
    """The first objective against each of the others: what runs got, and what is suggested, as PNG.

    Args:
        seen: The task's runs; a column for each objective, in its own units, and `front`.
        suggested: The suggestions: the same columns with what is predicted, and `rank`.
        directions: Objective -> which of its values are better; the first one is on every y axis.
    """
    first, *others = directions
    figure = Figure(figsize=(0.8 + 4.2 * len(others), 4.2), layout="constrained")
    panels = figure.subplots(1, len(others), squeeze=False)[0]
    for axes, other in zip(panels, others, strict=True):
        axes.scatter(seen[other], seen[first], s=16, color=_GREY, label="runs before")
        best = seen[seen["front"] == 1]
        axes.scatter(best[other], best[first], s=16, color=_BLUE, label="of these not beaten")
        axes.scatter(
            suggested[other], suggested[first], s=34, marker="D", facecolor="white",
            edgecolor=_ORANGE, zorder=3, label="suggested, by rank",
        )  # fmt: skip
        for rank, x, y in zip(suggested["rank"], suggested[other], suggested[first], strict=True):
            axes.annotate(str(rank), (x, y), (4, 4), textcoords="offset points", fontsize=8)
        for axis, name in ((axes.xaxis, other), (axes.yaxis, first)):
            values = np.concatenate([seen[name], suggested[name]]).astype(float)
            if is_wide(values):
                (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
                _label_decades(axis, values.min(), values.max())
        unit = " in s" if other == DURATION else ""
        axes.set_xlabel(f"{shown.picture(other, _MAX_LABEL)}{unit} ({_good(directions[other])})")
        axes.set_ylabel(f"{shown.picture(first, _MAX_LABEL)} ({_good(directions[first])})")
    panels[0].legend(frameon=False, fontsize=8)
    return _png(figure)


def _good(direction: Direction) -> str:
    return "low is good" if direction is Direction.MINIMIZE else "high is good"


def regrets(found: Backtest, objective: Objective) -> bytes:
    """What each way of a backtest lacked to the pool's best after ever more runs, as PNG."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    place = np.arange(1, len(found.pool) + 1)
    styles = {"ours": (_BLUE, "-"), "as run": (_ORANGE, "--"), "random": (_GREY, "-")}
    for name, way in found.ways.items():
        color, line = styles.get(name, ("black", ":"))
        course = found.regret(way.course)
        axes.step(place, course, where="post", color=color, linestyle=line, label=name)
        if name == "random":
            band = found.regret(way.low), found.regret(way.high)
            axes.fill_between(place, *band, step="post", color=color, alpha=0.2, linewidth=0)
    axes.set_xlabel(
        f"further runs of {shown.picture(found.task, _MAX_TASK)}, after the first {found.n_start}"
    )
    axes.set_ylabel(f"{shown.picture(objective.metric, _MAX_LABEL)}: distance to the best")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8, title="random: with 10% to 90%", title_fontsize=8)
    return _png(figure)


def importance(frame: pd.DataFrame) -> bytes:
    """How much each param matters, both measures as shares, as PNG; see `explain.importance`."""
    figure = Figure(figsize=(7.0, _bars_height(frame)), layout="constrained")
    _draw_importance(figure, frame)
    return _png(figure)


def partial_dependence(
    curves: Mapping[str, pd.DataFrame], space: SearchSpace, objective: Objective, task: str
) -> bytes:
    """Small multiples of curves, one for each param, as PNG; see `explain.partial_dependence`."""
    n_rows = -(-max(len(curves), 1) // 3)
    figure = Figure(figsize=(9.0, 0.5 + 2.5 * n_rows), layout="constrained")
    _draw_curves(figure, curves, space, objective, task)
    return _png(figure)


def explanation(found: Explanation, space: SearchSpace, objective: Objective, task: str) -> bytes:
    """Importance above, curves below, as PNG."""
    heights = [
        _bars_height(found.importance),
        0.5 + 2.5 * -(-max(len(found.curves), 1) // 3),
    ]
    figure = Figure(figsize=(9.0, sum(heights)), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)  # typed as if it were one
    _draw_importance(parts[0], found.importance)
    _draw_curves(parts[1], found.curves, space, objective, task)
    return _png(figure)


def _bars_height(frame: pd.DataFrame) -> float:
    return 1.3 + 0.32 * min(len(frame), MAX_BARS)


def _draw_importance(figure: Figure | SubFigure, frame: pd.DataFrame) -> None:
    rows = frame.head(MAX_BARS).iloc[::-1]
    permutation = np.maximum(frame["permutation"].to_numpy(float), 0.0)
    total = permutation.sum() or 1.0
    axes = figure.subplots()
    place = np.arange(len(rows))
    by_model = np.maximum(rows["permutation"].to_numpy(float), 0.0) / total
    axes.barh(place + 0.2, by_model, 0.36, color=_BLUE, label="permutation: to the meta-model")
    axes.barh(
        place - 0.2,
        rows["ped_anova"],
        0.36,
        color=_ORANGE,
        label="PED-ANOVA: to be in the best 10%",
    )
    axes.set_yticks(place, [shown.picture(name, _MAX_LABEL) for name in rows["param"]])
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the importance of all params")
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def _draw_curves(
    figure: Figure | SubFigure,
    curves: Mapping[str, pd.DataFrame],
    space: SearchSpace,
    objective: Objective,
    task: str,
) -> None:
    if not curves:
        return
    n_rows = -(-len(curves) // 3)
    grid = figure.subplots(n_rows, min(len(curves), 3), sharey=True, squeeze=False)
    for axes in grid.flat[len(curves) :]:
        axes.set_visible(False)
    for axes, (name, curve) in zip(grid.flat, curves.items(), strict=False):
        param = space.params[name]
        sides = [curve["mean"] - curve["low"], curve["high"] - curve["mean"]]
        if isinstance(param, Categorical):
            place = np.arange(len(curve))
            # A mean may lie outside the quantiles, where a few configurations are far off.
            away = [np.maximum(side, 0.0) for side in sides]
            axes.errorbar(place, curve["mean"], yerr=away, fmt="o", color=_BLUE, capsize=3)
            labels = [shown.picture(str(choice), _MAX_CHOICE) for choice in curve["at"]]
            crowded = sum(len(label) + 2 for label in labels) > _MAX_ROW
            axes.set_xticks(
                place,
                labels,
                rotation=45 if crowded else 0,
                rotation_mode="anchor",
                ha="right" if crowded else "center",
            )
            axes.margins(x=0.2)
        else:
            place = curve["at"].to_numpy(float)
            axes.fill_between(place, curve["low"], curve["high"], color=_BLUE, alpha=0.2, lw=0)
            axes.plot(place, curve["mean"], color=_BLUE)
            if param.log:
                axes.set_xscale("log")
                _label_decades(axes.xaxis, float(place.min()), float(place.max()))
        axes.set_xlabel(shown.picture(name, _MAX_LABEL))
    on = value_range(pd.concat(curves.values())[["mean", "low", "high"]], [])
    if on.log:
        for axes in grid.flat[: len(curves)]:
            axes.set_yscale("log")
            _label_decades(axes.yaxis, on.low, on.high)
    figure.supylabel(_metric(objective), fontsize=10)
    figure.suptitle(
        f"Expected on {shown.picture(task, _MAX_TASK)}: mean, and 80% of configurations",
        fontsize=10,
    )


def _label_decades(axis: Axis, low: float, high: float) -> None:
    """Labels on a logarithmic axis from `low` to `high`: at least two, and not too many."""
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")  # not mathtext: its parser is slow
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    if high >= 100 * low:
        axis.set_major_locator(FixedLocator(powers[:: -(-len(powers) // _MAX_TICKS)].tolist()))
        return
    # 1, 2 and 5 of each decade; where they are too few, as a linear scale has them.
    within = [k * power for power in powers for k in (1, 2, 5) if low <= k * power <= high]
    ticks = within if len(within) > 1 else list(MaxNLocator(4).tick_values(low, high))
    axis.set_major_locator(FixedLocator(ticks))


def _metric(objective: Objective) -> str:
    return f"{shown.picture(objective.metric, _MAX_LABEL)} ({objective.direction.value})"


def _png(figure: Figure) -> bytes:
    figure.set_dpi(_DPI)
    canvas: Any = FigureCanvasAgg(figure)  # whose methods have no types
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it draws a box instead
        # Not `savefig`, which draws everything twice.
        canvas.print_png(buffer)
    return buffer.getvalue()
