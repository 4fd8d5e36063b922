"""What the charts of a report's page are drawn from: plain data, as JSON has it.

A run's `at` holds its place on each axis: a number, or the place of its choice; None where the
param is not set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from mlflow_meta import shown
from mlflow_meta.axes import Range, is_wide, time_unit, value_range
from mlflow_meta.columns import columns_with
from mlflow_meta.pages.story import Story
from mlflow_meta.space import Categorical, SearchSpace

MAX_AXES = 9  # params of the parallel coordinates; the metric has an axis of its own
MAX_LINES = 300  # runs before, in the parallel coordinates
MAX_DOTS = 2000  # runs before, in the chart of the budget
MAX_BARS = 12  # params in the chart of importance
MAX_CHOICES = 12  # of an axis; the rarest share a place
MAX_TEXT = 40  # characters of a name or a choice
BEST = 0.1  # share of the runs before that count as good
_OTHERS = "(others)"
_FLAGS = ["suggested", "waits", "drawn", "good"]
_OF_A_RUN = ["name", *_FLAGS, "turn", "spent", "got", "predicted", "low", "high"]


def charts(story: Story) -> dict[str, Any]:
    """What `report.js` draws: runs, and the axes on which they are."""
    before = story.before.assign(suggested=False, predicted=np.nan, low=np.nan, high=np.nan)
    before["name"] = [f"run {str(run_id)[:8]}" for run_id in before["run_id"]]
    suggested = story.suggested.assign(suggested=True, waits=story.waiting)
    runs = pd.concat([before.assign(waits=False), suggested], ignore_index=True)
    runs = runs.sort_values("start_time", kind="stable", ignore_index=True)
    runs = runs.astype({"suggested": bool, "waits": bool})
    names = _axis_names(story)
    axes, places = [], []
    for name in names[:MAX_AXES]:
        axis, at = _axis(name, runs[f"params.{name}"], story.space)
        axes.append(axis)
        places.append(at)
    value = runs["got"].fillna(runs["predicted"])
    shared = _values_of(runs)
    axes.append({"name": story.objective.metric, **_numeric(value, is_log=shared.log)})
    places.append([_plain(v) for v in value])
    drawn, good = _chosen(story, runs)
    runs = _counted(runs).assign(drawn=drawn, good=good)
    unit, unit_s = time_unit(runs["spent_s"].max())
    runs["spent"] = runs["spent_s"] / unit_s
    listed = []
    chosen = _listed(story, runs, drawn)
    for i, row in zip(chosen, runs.loc[chosen, _OF_A_RUN].to_dict("records"), strict=True):
        at = [axis_places[i] for axis_places in places]
        listed.append(_run(row, at) | {"said": _said(at, axes) if drawn[i] else ""})
    return {
        "metric": shown.cut(story.objective.metric, MAX_TEXT),
        "direction": story.objective.direction.value,
        "sign": story.objective.direction.sign,
        "has_times": bool(runs.loc[runs["got"].notna(), "duration_s"].gt(0).any()),
        "unit": unit,
        "values": asdict(shared),
        "compared": asdict(_values_of(runs[runs["got"].notna() & runs["predicted"].notna()])),
        "n_params": len(names),
        "ranked_by": "most important" if story.explanation else "most varied",
        "axes": [axis | {"name": shown.cut(axis["name"], MAX_TEXT)} for axis in axes],
        "runs": listed,
        "importance": _importance(story),
        "curves": _curves(story),
        "expected": asdict(_expected(story)),
    }


def _axis_names(story: Story) -> list[str]:
    """The params with more than one value, the most important or most varied first."""
    runs = pd.concat([story.before, story.suggested])
    varied = {}
    for column in columns_with(runs, "params."):
        n = len({str(value) for value in runs[column].dropna().unique()})
        if n > 1:
            varied[column.removeprefix("params.")] = n
    ranked = sorted(varied, key=lambda name: -varied[name])
    if story.explanation is not None:
        important = [str(name) for name in story.explanation.importance["param"]]
        known = [name for name in important if name in varied]
        ranked = [*known, *(name for name in ranked if name not in known)]
    return ranked


def _axis(
    name: str, column: pd.Series, space: SearchSpace | None
) -> tuple[dict[str, Any], list[float | None]]:
    """An axis, of the scale that the space has for it, and where the runs are on it, `(n,)`."""
    is_flag = column.dropna().astype(str).isin(["True", "False"]).all()
    numbers = pd.to_numeric(column.astype(object), errors="coerce").astype(float)
    if not is_flag and numbers.notna().sum() == column.notna().sum():
        param = space.params.get(name) if space else None
        is_log = param.log and bool(numbers.min() > 0) if param else is_wide(numbers)
        axis = {"name": name, **_numeric(numbers, is_log=is_log)}
        return axis, [_plain(v) for v in numbers.tolist()]
    texts = column.astype(object).map(str, na_action="ignore")
    counts = texts.value_counts()
    common = sorted(counts.index[: MAX_CHOICES if len(counts) <= MAX_CHOICES else MAX_CHOICES - 1])
    choices = common if len(counts) <= MAX_CHOICES else [*common, _OTHERS]
    place = {choice: i for i, choice in enumerate(common)}
    at: list[float | None]
    at = [None if pd.isna(t) else float(place.get(t, len(choices) - 1)) for t in texts]
    return {"name": name, "choices": [shown.cut(c, MAX_TEXT) for c in choices]}, at


def _numeric(values: pd.Series, *, is_log: bool) -> dict[str, Any]:
    known = values.to_numpy(float)
    known = known[np.isfinite(known)]
    ends = [float(known.min()), float(known.max())] if len(known) else []
    return {"values": ends, "log": is_log}


def _values_of(runs: pd.DataFrame) -> Range:
    """The axis of the metric."""
    points, ends = runs[["got", "predicted"]], runs[["low", "high"]]
    return value_range(points.to_numpy(float), ends.to_numpy(float))


def _expected(story: Story) -> Range:
    """The axis that all curves share."""
    curves = story.explanation.curves.values() if story.explanation else ()
    means = [v for curve in curves for v in curve["mean"]]
    ends = [v for curve in curves for side in ("low", "high") for v in curve[side]]
    return value_range([*means, *ends], [])


def _chosen(story: Story, runs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Which runs get a line, `(n,)`, and which of these are good."""
    ours = runs["suggested"].to_numpy(bool)
    value = story.objective.direction.sign * runs["got"].to_numpy(float)
    others = np.flatnonzero(~ours)
    ranked = others[np.argsort(value[others], kind="stable")]
    good, drawn = np.zeros(len(runs), dtype=bool), ours.copy()
    good[ranked[: int(np.ceil(BEST * len(ranked)))]] = True
    half = MAX_LINES // 2
    rest = ranked[half:]
    drawn[ranked[:half]] = True
    drawn[rest[np.linspace(0, len(rest) - 1, min(half, len(rest))).astype(int)]] = True
    return drawn, good


def _counted(runs: pd.DataFrame) -> pd.DataFrame:
    """With the place of each run in the order of training, and the time that all until it took.

    A run that waits takes the median of the others' time.
    """
    is_done = runs["got"].notna()
    usual_s = runs.loc[is_done, "duration_s"].median()
    took_s = runs["duration_s"].where(is_done).mask(runs["waits"], usual_s).fillna(0.0)
    return runs.assign(turn=(is_done | runs["waits"]).cumsum(), spent_s=took_s.cumsum())


def _listed(story: Story, runs: pd.DataFrame, drawn: np.ndarray) -> np.ndarray:
    """The places of the runs that the page has: those that matter, and others evenly."""
    value = story.objective.direction.sign * runs["got"].fillna(np.inf).to_numpy(float)
    best = np.minimum.accumulate(value)
    better = np.append(True, best[1:] < best[:-1])
    matter = drawn | better | runs["suggested"].to_numpy(bool)
    others = np.flatnonzero(~matter)
    n = min(len(others), MAX_DOTS)
    some = others[np.linspace(0, len(others) - 1, n).astype(int)]
    return np.sort(np.concatenate([np.flatnonzero(matter), some]))


def _run(row: Mapping[Any, Any], at: list[float | None]) -> dict[str, Any]:
    return {
        "name": shown.cut(str(row["name"]), MAX_TEXT),
        **{key: bool(row[key]) for key in _FLAGS},
        "turn": int(row["turn"]),
        "spent": float(row["spent"]),
        **{key: _plain(row[key]) for key in ("got", "predicted", "low", "high")},
        "at": at,
    }


def _said(at: list[float | None], axes: list[dict[str, Any]]) -> str:
    """The params of a run, as its line shows them when it is pointed at."""
    said = []
    for axis, value in zip(axes[:-1], at, strict=False):
        if value is not None:
            choices = axis.get("choices")
            words = choices[int(value)] if choices else f"{value:.5g}"
            said.append(f"{shown.cut(axis['name'], MAX_TEXT)}={words}")
    return ", ".join(said)


def _importance(story: Story) -> list[dict[str, Any]]:
    if story.explanation is None:
        return []
    frame = story.explanation.importance
    by_model = np.maximum(frame["permutation"].to_numpy(float), 0.0)
    shares = by_model / (by_model.sum() or 1.0)
    rows = zip(frame["param"], shares, frame["ped_anova"], strict=True)
    return [
        {"name": shown.cut(str(name), MAX_TEXT), "model": float(model), "runs": float(runs)}
        for name, model, runs in list(rows)[:MAX_BARS]
    ]


def _curves(story: Story) -> list[dict[str, Any]]:
    if story.explanation is None or story.space is None:
        return []
    found = []
    for name, curve in story.explanation.curves.items():
        param = story.space.params[name]
        sides = {side: [float(v) for v in curve[side]] for side in ("mean", "low", "high")}
        where: dict[str, Any]
        if isinstance(param, Categorical):
            where = {"choices": [shown.cut(str(choice), MAX_TEXT) for choice in curve["at"]]}
        else:
            where = {"at": [float(v) for v in curve["at"]], "log": param.log}
        found.append({"name": shown.cut(name, MAX_TEXT), **sides, **where})
    return found


def _plain(value: Any) -> float | None:
    number = float(value) if not pd.isna(value) else np.nan
    return number if np.isfinite(number) else None
