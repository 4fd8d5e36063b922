"""The words and the table of a report's page: what can be read without a script."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mlflow_meta import shown
from mlflow_meta.columns import config_of
from mlflow_meta.pages.charts import MAX_BARS, MAX_LINES
from mlflow_meta.pages.story import Story
from mlflow_meta.trials import Direction

MAX_VALUE = 80  # characters of a param's value in the table
MAX_PARAMS = 60  # of a suggestion in the table
MAX_VERSIONS = 4  # of a meta-model that are listed


def words(story: Story) -> dict[str, Any]:
    """What the template asks for, beside the charts."""
    metric = shown.cut(story.objective.metric, MAX_VALUE)
    numbers = ["rank", f"predicted {metric}", "80% interval", f"got {metric}"]
    texts = ["status", "run", "suggested by"]
    n_models = len(
        {str(version).rpartition("/")[0] for version in story.suggested["version"]} - {""}
    )
    return {
        "experiment": shown.cut(story.experiment_name, MAX_VALUE),
        "task": shown.cut(story.task, MAX_VALUE),
        "metric": metric,
        "direction": story.objective.direction.value,
        "makers": _makers(story),
        "model": shown.cut(story.model, MAX_VALUE),
        "now": f"{story.now:%Y-%m-%d %H:%M} UTC",
        "tiles": _tiles(story, metric),
        "columns": [*((name, "number") for name in numbers), *((name, "text") for name in texts)],
        "rows": [
            _row(row, _maker(row["version"], n_models), story.address)
            for row in story.suggested.to_dict("records")
        ],
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
        {"name": "suggested", "value": str(n_all), "said": _states(story)},
        {"name": "inside their 80% interval", "value": inside,
         "said": f"of {n_done} finished suggestions; about 80% is right"},
    ]  # fmt: skip


def _states(story: Story) -> str:
    """How far the suggestions are, in words."""
    rejected = (story.suggested["verdict"] == "rejected") & story.suggested["got"].isna()
    training = story.waiting & (story.suggested["status"] == "RUNNING")
    counts = {
        "finished": len(story.done),
        "waiting": int((story.waiting & ~training).sum()),
        "in training": int(training.sum()),
        "rejected": int(rejected.sum()),
    }
    counts["ended without the metric"] = len(story.suggested) - sum(counts.values())
    always = ("finished", "waiting")
    return ", ".join(f"{n} {state}" for state, n in counts.items() if n or state in always)


def _makers(story: Story) -> str:
    """Which meta-models, and which versions of each, have suggested."""
    versions: dict[str, list[str]] = defaultdict(list)
    for text in dict.fromkeys(story.suggested["version"].astype(str)):
        model, _, version = text.rpartition("/")
        versions[model].append(version)
    explored = versions.pop("", [])
    said = []
    for model, found in versions.items():
        ordered = [f"v{version}" for version in sorted(found, key=lambda v: (len(v), v))]
        if len(ordered) > MAX_VERSIONS:
            ordered = [*ordered[:1], f"{len(ordered) - 2} others", *ordered[-1:]]
        *others, last = ordered
        named = f"{', '.join(others)} and {last}" if others else last
        said.append(f"by {shown.cut(model, MAX_VALUE)} {named}")
    if explored:
        said.append("without a meta-model, to cover the space evenly")
    return "; ".join(said)


def _maker(text: str, n_models: int) -> str:
    """What has suggested one; the version alone where all are of one meta-model."""
    model, _, version = text.rpartition("/")
    if not model:
        return "exploring"
    return f"v{version}" if n_models == 1 else f"{model} v{version}"


def _row(row: Mapping[Any, Any], maker: str, address: str) -> dict[str, Any]:
    cells = [_cell(row[name]) for name in ("rank", "predicted", "low", "got")]
    cells[2]["text"] = f"{_number(row['low'])} .. {_number(row['high'])}"
    decided = f", {row['verdict']}" if row["verdict"] and pd.isna(row["got"]) else ""
    reason = f": {row['reason']}" if decided and row["reason"] else ""
    link = f"{address}{row['run_id']}" if address and row["run_id"] else ""
    for text, to in (
        (f"{row['status']}{decided}{reason}", ""),
        (str(row["name"]), link),
        (maker, ""),
    ):
        cut = shown.cut(text, MAX_VALUE)
        cells.append({"kind": "text", "text": cut, "sort": cut, "address": to})
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
    """Which runs are not drawn as configurations; how many params are is a matter of the width."""
    n_runs = len(story.before)
    if n_runs <= MAX_LINES:
        return ""
    return f"Of {n_runs} runs before, {MAX_LINES} are drawn: the best half of these, and others."


def _left_out(story: Story) -> str:
    n = len(story.explanation.importance) if story.explanation else 0
    return f"The first {MAX_BARS} of {n} params." if n > MAX_BARS else ""
