"""The words and the table of a report's page: what can be read without a script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mlflow_meta import shown
from mlflow_meta.columns import config_of
from mlflow_meta.pages.charts import MAX_AXES, MAX_BARS, MAX_LINES, axis_names
from mlflow_meta.pages.story import Story
from mlflow_meta.trials import Direction

MAX_VALUE = 80  # characters of a param's value in the table
MAX_PARAMS = 60  # of a suggestion in the table


def words(story: Story) -> dict[str, Any]:
    """What the template asks for, beside the charts."""
    metric = shown.cut(story.objective.metric, MAX_VALUE)
    columns = ["rank", f"predicted {metric}", "80% interval", f"got {metric}"]
    return {
        "experiment": shown.cut(story.experiment_name, MAX_VALUE),
        "task": shown.cut(story.task, MAX_VALUE),
        "metric": metric,
        "direction": story.objective.direction.value,
        "model": shown.cut(story.model, MAX_VALUE),
        "now": f"{story.now:%Y-%m-%d %H:%M} UTC",
        "tiles": _tiles(story, metric),
        "columns": [*((name, "number") for name in columns), ("status", "text"), ("run", "text")],
        "rows": [_row(row, story.address) for row in story.suggested.to_dict("records")],
        "drawn": _drawn(story),
        "why_not": story.why_not,
        "left_out": _left_out(story),
    }


def _tiles(story: Story, metric: str) -> list[dict[str, str]]:
    n_before, n_done, n_all = len(story.before), len(story.done), len(story.suggested)
    before, after = story.best_before, story.best_after
    sign = story.objective.direction.sign
    if not n_done:
        change = "no suggestion has finished yet"
    elif n_before and sign * after < sign * before:
        change = f"{_number(abs(after - before))} better, by {n_done} suggested runs"
    else:
        change = f"not beaten by {n_done} suggested runs"
    inside = "-" if pd.isna(story.coverage) else f"{story.coverage:.0%}"
    side = "lowest" if story.objective.direction is Direction.MINIMIZE else "highest"
    return [
        {"name": f"best {metric} before", "value": _number(before),
         "said": f"the {side} of {n_before} runs"},
        {"name": f"best {metric} now", "value": _number(after), "said": change},
        {"name": "suggested", "value": str(n_all),
         "said": f"{n_done} finished, {(story.suggested['status'] == 'SCHEDULED').sum()} waiting"},
        {"name": "inside their 80% interval", "value": inside,
         "said": f"of {n_done} finished suggestions; about 80% is right"},
    ]  # fmt: skip


def _row(row: Mapping[Any, Any], address: str) -> dict[str, Any]:
    cells = [_cell(row[name]) for name in ("rank", "predicted", "low", "got")]
    cells[2]["text"] = f"{_number(row['low'])} .. {_number(row['high'])}"
    status, name = (shown.cut(str(row[key]), MAX_VALUE) for key in ("status", "name"))
    link = f"{address}{row['run_id']}" if address and row["run_id"] else ""
    cells.append({"kind": "text", "text": status, "sort": status, "address": ""})
    cells.append({"kind": "text", "text": name, "sort": name, "address": link})
    config = list(config_of(row).items())[:MAX_PARAMS]
    return {
        "cells": cells,
        "params": [
            (shown.cut(key, MAX_VALUE), shown.cut(_number(value), MAX_VALUE))
            for key, value in config
        ],
    }


def _cell(number: float) -> dict[str, Any]:
    sort = "" if pd.isna(number) else repr(float(number))
    return {"kind": "number", "text": _number(number), "sort": sort, "address": ""}


def _number(value: Any) -> str:
    if isinstance(value, float):
        return "-" if pd.isna(value) else f"{value:.5g}"
    return str(value)


def _drawn(story: Story) -> str:
    """What of the configurations is not drawn, as sentences."""
    n_params, n_runs = len(axis_names(story, limit=None)), len(story.before)
    said = []
    if n_params > MAX_AXES:
        by = "most important" if story.explanation else "most varied"
        said.append(f"The {MAX_AXES} {by} of {n_params} params are drawn.")
    if n_runs > MAX_LINES:
        said.append(
            f"Of {n_runs} runs before, {MAX_LINES} are drawn: the best half of these, and others."
        )
    return " ".join(said)


def _left_out(story: Story) -> str:
    n = len(story.explanation.importance) if story.explanation else 0
    return f"The first {MAX_BARS} of {n} params." if n > MAX_BARS else ""
