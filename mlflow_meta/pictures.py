"""Pictures, as PNG files. One theme, units on the axes, legible in grey."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlflow_meta.backtest import Backtest
from mlflow_meta.models import MetaModel
from mlflow_meta.trials import Direction, Objective

_GREY, _BLUE, _ORANGE = "#8a8f98", "#1f5fa8", "#d9730d"
_SIZE = (7.0, 4.2)  # inches
_DPI = 110


def predicted_against_actual(model: MetaModel, objective: Objective) -> bytes:
    """How well a freshly fitted meta-model predicted trials that were held out, as PNG."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    ends = [min(model.cv_scores.min(), model.cv_predicted.min()),
            max(model.cv_scores.max(), model.cv_predicted.max())]  # fmt: skip
    axes.plot(ends, ends, color=_GREY, linewidth=1, zorder=1)
    axes.scatter(model.cv_predicted, model.cv_scores, s=18, color=_BLUE, alpha=0.7, zorder=2)
    axes.set_xlabel(f"predicted {objective.metric}, standard score (low is good)")
    axes.set_ylabel("actual, standard score within its task")
    axes.set_title(f"Held-out trials: rank correlation {model.cv_spearman:.2f}", fontsize=10)
    return _png(figure)


def progress(history: pd.DataFrame, suggested: pd.DataFrame, objective: Objective) -> bytes:
    """The metric of every run in the order of training, suggested ones with what was predicted.

    Args:
        history: The runs that were not suggested: `start_time`, `got`.
        suggested: Suggested runs that have ended: `start_time`, `got`, `predicted`, `low`, `high`.
        objective: Which metric, and which of its values are better.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    runs = pd.concat([history.assign(ours=False), suggested.assign(ours=True)])
    runs = runs.sort_values("start_time").reset_index(drop=True)
    place = np.arange(1, len(runs) + 1)
    ours = runs["ours"].to_numpy(bool)
    got = runs["got"].to_numpy(float)
    best = np.minimum.accumulate(got)
    if objective.direction is Direction.MAXIMIZE:
        best = np.maximum.accumulate(got)
    axes.step(place, best, where="post", color=_GREY, linewidth=1.2, label="best so far")
    axes.scatter(place[~ours], got[~ours], s=20, color=_GREY, label="runs before")
    if ours.any():
        middle = runs.loc[ours, "predicted"].to_numpy(float)
        low, high = (runs.loc[ours, side].to_numpy(float) for side in ("low", "high"))
        axes.errorbar(
            place[ours],
            middle,
            yerr=[np.maximum(middle - low, 0), np.maximum(high - middle, 0)],
            fmt="_",
            color=_BLUE,
            capsize=3,
            label="predicted, with 80% interval",
        )
        axes.scatter(
            place[ours], got[ours], s=34, marker="D", color=_ORANGE, label="suggested, got"
        )
    if got.min() > 0 and got.max() / got.min() > 30:
        axes.set_yscale("log")
    axes.set_xlabel("run, in the order of training")
    axes.set_ylabel(f"{objective.metric} ({objective.direction.value})")
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


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
    axes.set_xlabel(f"further runs of {found.task}, after the first {found.n_start}")
    axes.set_ylabel(f"{objective.metric}: distance to the best")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8, title="random: with 10% to 90%", title_fontsize=8)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
