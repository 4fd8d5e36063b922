"""The report's page in a real browser: it draws, sorts, and does nothing that a run says."""

import importlib.util
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import need
from payloads import PAYLOADS

from mlflow_meta import shown
from mlflow_meta.explain import Explanation
from mlflow_meta.pages import Story, page
from mlflow_meta.pages.charts import charts
from mlflow_meta.space import SearchSpace
from mlflow_meta.trials import Direction, Objective

OURS = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "dl", "dt", "dd",
    "div", "small", "section", "fieldset", "label", "input", "ul", "li", "table", "thead", "tbody",
    "tr", "th", "td", "button", "b", "noscript", "script", "svg", "g", "path", "line", "rect",
    "circle", "text", "span",
}  # fmt: skip
LOOK = """() => ({
    tags: [...new Set([...document.querySelectorAll('*')].map(e => e.tagName.toLowerCase()))],
    scripts: document.scripts.length,
    handlers: [...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())
        .filter(name => name.startsWith('on') || ['href', 'src', 'srcdoc', 'style'].includes(name)),
    hit: window.hit ?? null,
    width: document.documentElement.scrollWidth,
})"""


def story(
    n_before: int = 30,
    *,
    name: str = "sweep",
    metric: str = "val_loss",
    params: tuple[str, ...] = ("lr", "depth", "model"),
    choices: tuple[str, ...] = ("tree", "mlp"),
    n_done: int = 2,
    is_explained: bool = True,
    direction: Direction = Direction.MINIMIZE,
) -> Story:
    """A report of `n_before` runs and 3 suggestions, `n_done` of which have finished."""
    rng = np.random.default_rng(0)
    n = n_before + 3
    columns = {
        f"params.{param}": [choices[j % len(choices)] for j in range(n)]
        if i % 3 == 2
        else rng.uniform(0.1, 1, n)
        for i, param in enumerate(params)
    }
    frame = pd.DataFrame(columns).assign(
        run_id=[f"{i:032x}" for i in range(n)],
        start_time=pd.date_range("2026-01-01", periods=n, freq="h", tz="UTC"),
        duration_s=rng.uniform(60, 3600, n),
        got=rng.uniform(0.2, 1, n),
    )
    ours = frame.tail(3).reset_index(drop=True)
    ours = ours.assign(
        name=[f"suggested {choices[i % len(choices)]}" for i in range(3)],
        rank=[1, 2, 3],
        status=["FINISHED" if i < n_done else "SCHEDULED" for i in range(3)],
        version="mlflow-meta-val_loss/1",
        verdict="",
        reason="",
        predicted=[0.1, 0.3, 0.2],
        low=[0.05, 0.1, 0.1],
        high=[0.4, 0.5, 0.6],
        got=[ours["got"][i] if i < n_done else np.nan for i in range(3)],
    )
    space = SearchSpace.from_dict({params[0]: {"type": "float", "low": 0.1, "high": 1.0}})
    curve = pd.DataFrame(
        {"at": [0.1, 1.0], "mean": [0.5, 0.4], "low": [0.3, 0.2], "high": [0.7, 0.6]}
    )
    table = pd.DataFrame(
        {"param": params, "permutation": 0.1, "ped_anova": 1 / len(params), "n": n}
    )
    return Story(
        experiment_name=name,
        task=name,
        objective=Objective(metric=metric, direction=direction),
        model="mlflow-meta v1",
        before=frame.head(n_before),
        suggested=ours,
        explanation=Explanation(importance=table, curves={params[0]: curve})
        if is_explained
        else None,
        space=space if is_explained else None,
        why_not="" if is_explained else "No meta-model has been trained yet.",
        address="",
        now=datetime(2026, 1, 2, tzinfo=timezone.utc),
    )


@contextmanager
def opened(told: Story, folder: Path, width: int = 1280) -> Iterator:
    """The page in Chromium; what it has said, asked for and opened must be nothing."""
    need(importlib.util.find_spec("playwright"), "playwright is not installed")
    need(shutil.which("chromium"), "no Chromium is installed (apt-get install chromium)")
    from screenshots import chromium

    file = folder / "report.html"
    file.write_bytes(page(told))
    said: list[str] = []
    with chromium() as browser:
        browser.set_viewport_size({"width": width, "height": 900})
        browser.on("console", lambda message: said.append(message.text))
        browser.on("pageerror", lambda error: said.append(str(error)))
        browser.on("dialog", lambda dialog: (said.append("dialog"), dialog.dismiss()))
        browser.on("request", lambda request: said.append(request.url))
        browser.goto(file.as_uri())
        browser.wait_for_timeout(200)
        assert said == [file.as_uri()], "it asked for more than itself, or something failed"
        said.clear()
        yield browser
        browser.wait_for_timeout(100)
    assert not said


@pytest.mark.browser
@pytest.mark.slow
def test_a_hostile_run_does_nothing_in_the_report(tmp_path: Path) -> None:
    per_page = 10
    for start in range(0, len(PAYLOADS), per_page):
        part = tuple(PAYLOADS[start : start + per_page])
        told = story(name=part[0], metric=part[-1], params=("x", "y", "z", *part), choices=part)
        with opened(told, tmp_path) as browser:
            for element in browser.locator("#parallel path").all()[:3]:
                element.dispatch_event("pointerenter")
            seen = browser.evaluate(LOOK)
            table = browser.locator("#suggestions").inner_text()
        assert seen["hit"] is None
        assert set(seen["tags"]) <= OURS, f"not ours: {set(seen['tags']) - OURS}"
        assert seen["scripts"] == 2
        assert not seen["handlers"]
        for payload in part:
            assert " ".join(shown.cut(payload, 80).split()) in " ".join(table.split())


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("n_done", [0, 3])
@pytest.mark.parametrize("is_explained", [True, False])
def test_a_report_is_drawn_without_results_and_without_a_champion(
    n_done: int, is_explained: bool, tmp_path: Path
) -> None:
    with opened(story(n_done=n_done, is_explained=is_explained), tmp_path) as browser:
        words = browser.inner_text("body")
        assert ("No suggestion has finished yet" in words) == (n_done == 0)
        assert ("No meta-model has been trained yet" in words) != is_explained
        assert browser.locator("#actual .ours").count() == n_done
        assert browser.locator("#budget .interval").count() == 3, "of those that wait too"
        assert browser.locator("#importance rect").count() == (6 if is_explained else 0)


@pytest.mark.browser
@pytest.mark.slow
def test_the_table_sorts_by_keyboard_and_what_is_not_known_comes_last(tmp_path: Path) -> None:
    with opened(story(n_done=1), tmp_path) as browser:
        ranks = "[...document.querySelectorAll('#suggestions tr td:first-child[data-sort]')]"
        ranks += ".map(cell => cell.innerText)"
        assert browser.evaluate(ranks) == ["1", "2", "3"]
        head = browser.get_by_role("button", name="predicted val_loss")
        head.focus()
        browser.keyboard.press("Enter")
        assert browser.evaluate(ranks) == ["1", "3", "2"]
        browser.keyboard.press("Enter")
        assert browser.evaluate(ranks) == ["2", "3", "1"]
        browser.get_by_role("button", name="got val_loss").click()
        browser.get_by_role("button", name="got val_loss").click()
        assert browser.evaluate(ranks)[0] == "1"
        assert browser.locator("th[aria-sort]").count() == 1


@pytest.mark.browser
@pytest.mark.slow
def test_a_part_of_an_axis_is_kept_by_mouse_and_by_keyboard(tmp_path: Path) -> None:
    with opened(story(), tmp_path) as browser:
        n_all = browser.locator("#parallel path").count()
        off = browser.locator("#parallel path.off")
        browser.locator("#parallel .handle").first.scroll_into_view_if_needed()
        box = browser.locator("#parallel .handle").first.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"]
        browser.mouse.move(x, y + 20)
        browser.mouse.down()
        browser.mouse.move(x, y + box["height"] / 2, steps=3)
        browser.mouse.up()
        assert 0 < off.count() < n_all
        assert f"{n_all - off.count()} of {n_all} runs" in browser.inner_text("#hover")
        browser.locator("#parallel .handle").first.focus()
        browser.keyboard.press("Escape")
        assert off.count() == 0
        browser.keyboard.press("ArrowUp")
        assert 0 < off.count() < n_all


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_many_runs_and_params_are_not_crowded(width: int, tmp_path: Path) -> None:
    told = story(500, params=tuple(f"a_rather_long_param_{i}" for i in range(40)))
    with opened(told, tmp_path, width) as browser:
        assert browser.evaluate(LOOK)["width"] <= width, "no sideways scrolling but the table's"
        assert browser.locator("#parallel .handle").count() <= 10
        words = browser.inner_text("body")
        n_drawn = browser.locator("#parallel .handle").count() - 1  # the metric has one, too
        assert f"The {n_drawn} most important of 40 params are drawn" in words
        assert "Of 500 runs before, 300 are drawn" in words
        assert "The first 12 of 40 params" in words
    assert len(page(told)) < 500_000


def test_a_page_has_no_number_that_json_lacks_and_names_the_better_side() -> None:
    told = story(n_done=0, direction=Direction.MAXIMIZE)
    text = page(told).decode()
    assert "NaN" not in text and "Infinity" not in text
    assert "the highest of 30 runs" in text
    assert page(told) == page(told)


def test_of_many_runs_a_page_has_those_that_matter_and_others_evenly() -> None:
    told = story(12_000)
    listed = charts(told)["runs"]
    assert len(listed) < 3000
    assert len(page(told)) < 1_500_000
    turns = [run["turn"] for run in listed]
    assert turns[-1] == 12_003, "each has its place among all runs"
    assert sum(run["suggested"] for run in listed) == 3
    best = told.before["got"].min()
    assert min(run["got"] for run in listed if run["got"] is not None) == pytest.approx(
        min(best, told.done["got"].min())
    )
    done_s = told.before["duration_s"].sum() + told.done["duration_s"].sum()
    usual_s = pd.concat([told.before["duration_s"], told.done["duration_s"]]).median()
    assert charts(told)["unit"] == "h"
    assert listed[-1]["spent"] == pytest.approx((done_s + usual_s) / 3600)


def varied(told: Story, **columns: list[object]) -> Story:
    """The same with other columns of its three suggestions."""
    return replace(told, suggested=told.suggested.assign(**columns))


@pytest.mark.browser
@pytest.mark.slow
def test_every_prediction_is_within_the_chart_and_what_waits_can_be_told_apart(
    tmp_path: Path,
) -> None:
    told = varied(story(n_done=1), low=[0.05, -40.0, 0.1], high=[0.4, 90.0, 0.6])
    with opened(told, tmp_path) as browser:
        frame = browser.locator("#budget svg").bounding_box()
        for mark in browser.locator("#budget .interval, #budget .waits, #budget .ours").all():
            box = mark.bounding_box()
            assert frame["y"] <= box["y"], "nothing is drawn above the chart"
            assert box["y"] + box["height"] <= frame["y"] + frame["height"]
        paths = browser.locator("#budget .interval").evaluate_all("m => m.map(e => e.outerHTML)")
        assert [path.count("L") for path in paths] == [3, 5, 3], "two arrows, where it goes on"
        said = browser.locator("#budget g title").all_text_contents()
        assert len(said) == 3
        assert sum("waits (predicted" in words for words in said) == 2
        browser.locator("input[value=time]").check()
        places = browser.locator("#budget .waits").evaluate_all("m => m.map(e => e.getBBox().x)")
        assert len(set(places)) == 2, "each has its own time"
        assert "[h]" in browser.inner_text("#budget")


@pytest.mark.browser
@pytest.mark.slow
def test_runs_sort_by_the_number_in_their_names_and_take_their_params_along(tmp_path: Path) -> None:
    names = [f"suggested {rank}: 0.5" for rank in (10, 9, 2)]
    told = varied(story(choices=("a", "b", "c")), name=names, version=["m/10", "m/9", "m/2"])
    rows = "[...document.querySelectorAll('#suggestions tbody')].map(b => b.innerText.trim())"
    with opened(told, tmp_path) as browser:
        before = browser.evaluate(rows)
        browser.locator("#suggestions button").get_by_text("run", exact=True).click()
        assert browser.evaluate(rows) == before[::-1]
        browser.get_by_role("button", name="suggested by").click()
        assert browser.evaluate(rows) == before[::-1]


@pytest.mark.browser
@pytest.mark.slow
def test_what_each_param_does_has_a_label_and_never_one_tick_alone(tmp_path: Path) -> None:
    told = story()
    spans = {"lr": (0.11, 0.29), "depth": (0.5, 0.9), "x": (1e-4, 1.0), "y": (3.0, 4.0)}
    curves = {
        name: pd.DataFrame({"at": ends, "mean": [0.5, 0.4], "low": [0.3, 0.2], "high": [0.7, 0.6]})
        for name, ends in spans.items()
    }
    space = SearchSpace.from_dict(
        {n: {"type": "float", "low": a, "high": b, "log": True} for n, (a, b) in spans.items()}
    )
    told = replace(told, explanation=replace(told.explanation, curves=curves), space=space)
    labels = (
        "marks => marks.map(e => [e.textContent, e.getAttribute('text-anchor'), e.getBBox().y])"
    )
    with opened(told, tmp_path, width=500) as browser:
        texts = browser.locator("#curves text").evaluate_all(labels)
    assert [words for words, *_ in texts].count("expected val_loss") >= 2
    along = Counter(y for words, anchor, y in texts if anchor == "middle" and words[0].isdigit())
    assert len(along) >= 2 and min(along.values()) >= 2


def test_a_page_credits_each_version_and_tells_what_was_rejected() -> None:
    told = varied(
        story(n_done=1),
        version=["mlflow-meta-val_loss/2", "mlflow-meta-val_loss/10", ""],
        verdict=["approved", "rejected", ""],
        reason=["", "batch_size<=64", ""],
    )
    text = page(told).decode()
    assert "by mlflow-meta-val_loss v2 and v10; without a meta-model" in text
    assert "SCHEDULED, rejected: batch_size&lt;=64" in text
    assert "1 finished, 1 waiting, 1 rejected" in text
    assert [run["waits"] for run in charts(told)["runs"] if run["suggested"]] == [
        False,
        False,
        True,
    ]


def test_axes_have_the_scale_that_the_space_has_and_others_go_by_their_width() -> None:
    told = story(params=("lr", "depth", "model"))
    before = told.before.assign(**{"params.lr": 0.1, "params.depth": np.geomspace(1, 40, 30)})
    before["params.lr"] = np.linspace(0.1, 0.5, 30)
    space = SearchSpace.from_dict({"lr": {"type": "float", "low": 0.1, "high": 1.0, "log": True}})
    ours = told.suggested.assign(**{"params.depth": 2.0})
    axes = charts(replace(told, before=before, space=space, suggested=ours))["axes"]
    assert {axis["name"]: axis.get("log") for axis in axes} == {
        "lr": True, "depth": True, "model": None, "val_loss": False,
    }  # fmt: skip


def test_a_page_lets_no_script_run_but_its_own() -> None:
    text = page(story()).decode()
    policy = text.partition('content="')[2].partition('"')[0]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
