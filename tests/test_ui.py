"""What a person sees and does in the stock MLflow UI, in a real browser."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from conftest import fill, need
from mlflow import MlflowClient
from payloads import PAYLOADS
from servers import mlflow_server

from mlflow_meta import shown
from mlflow_meta.cli import main
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.suggest import suggest
from mlflow_meta.services.train import train
from mlflow_meta.store import MlflowStore
from mlflow_meta.store.suggested import note
from mlflow_meta.trials import Suggestion, Suggestions

if TYPE_CHECKING:
    from playwright.sync_api import Page

OF_A_NOTE = {"p", "strong", "code", "table", "thead", "tbody", "tr", "th", "td", "a", "br"}
NOTE = """() => {
    const first = [...document.querySelectorAll('strong')]
        .find(element => element.innerText.startsWith('Suggestion'));
    const note = first.closest('p').parentElement;
    return {
        text: note.innerText,
        tags: [...new Set([...note.querySelectorAll('*')].map(e => e.tagName.toLowerCase()))],
        links: [...note.querySelectorAll('a')].map(e => e.getAttribute('href')),
        hit: window.hit ?? null,
    };
}"""

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def store(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> MlflowStore:
    """A store with a champion, for all of these tests: each suggests for its own experiment."""
    folder = tmp_path_factory.mktemp("ui")
    uri = f"sqlite:///{shutil.copy(empty_database, folder / 'mlflow.db')}"
    client = MlflowClient(uri)
    fill(client, folder)
    for name in ("approved", "hostile"):
        client.create_experiment(name, artifact_location=(folder / name).as_uri())
    store = MlflowStore(uri)
    harvest(store)
    train(store, metric="val_loss", kinds=["transfer"])
    return store


@pytest.fixture(scope="module")
def ui(store: MlflowStore) -> Iterator[tuple[str, Page]]:
    """A server on the store, and a page of a browser, which keeps what it has downloaded."""
    need(importlib.util.find_spec("playwright"), "playwright is not installed")
    need(shutil.which("chromium"), "no Chromium is installed (apt-get install chromium)")
    from screenshots import chromium

    with mlflow_server(store.uri) as url, chromium() as page:
        yield url, page


@pytest.fixture
def url(ui: tuple[str, Page]) -> str:
    return ui[0]


@pytest.fixture
def page(ui: tuple[str, Page]) -> Iterator[Page]:
    """An empty one, of a test's own."""
    page = ui[1].context.new_page()
    yield page
    page.close()


def experiment_id(store: MlflowStore, name: str) -> str:
    return str(store.client.get_experiment_by_name(name).experiment_id)


def test_suggested_runs_are_on_top_in_order_and_sort_by_what_is_predicted(
    store: MlflowStore, url: str, page: Page
) -> None:
    from screenshots import runs_table, sort_table

    found = suggest(store, "sweep-a", n=11)
    page.set_viewport_size({"width": 2000, "height": 900})
    rows = runs_table(page, url, experiment_id(store, "sweep-a"))
    seen = runs_table(page, url, experiment_id(store, "sweep-a"), found.view)
    ranked = [sort_table(page, "metrics.`mlflow_meta.rank`") for _ in "12"]
    ascending, descending = (sort_table(page, "metrics.`predicted_val_loss`") for _ in "12")
    assert [row["run_id"] for row in rows[:11]] == list(found.run_ids)
    ranks = [str(rank) for rank in range(1, 12)]
    assert [row["mlflow_meta.rank"] for row in seen[:11]] == ranks, "as numbers: 2 before 10"
    sorts = [[row["mlflow_meta.rank"] for row in rows[:11]] for rows in ranked]
    assert sorts == [ranks[::-1], ranks]
    for rank, (row, item) in enumerate(zip(rows, found.items, strict=False), start=1):
        assert row["Run Name"] == f"suggested {rank}: {item.mean:.4g}"
    predicted = {f"{what}predicted_val_loss" for what in ("", "low_80_", "high_80_")}
    assert predicted | {"duration_predicted_s", "val_loss", "lr"} <= set(seen[0])
    assert len({name[:12] for name in predicted}) == 3, "so much of a name is to be seen"
    assert float(seen[0]["predicted_val_loss"]) == pytest.approx(found.items[0].mean, rel=1e-5)
    by_value = [run_id for _, run_id in sorted(zip(_means(found), found.run_ids, strict=True))]
    sorts = [[row["run_id"] for row in rows[:11]] for rows in (ascending, descending)]
    assert by_value in sorts
    assert by_value[::-1] in sorts


def _means(found: Suggestions) -> list[float]:
    return [item.mean for item in found.items]


def test_a_run_that_is_approved_in_the_ui_is_trained_and_no_other(
    store: MlflowStore, url: str, page: Page
) -> None:
    from screenshots import run_page

    client = store.client
    found = suggest(store, "approved", n=2)
    run_page(page, url, experiment_id(store, "approved"), found.run_ids[1])
    page.get_by_role("button", name="Edit tags").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("combobox").first.click()
    page.keyboard.type("mlflow_meta.decision")
    page.keyboard.press("Enter")
    dialog.get_by_label("Value").first.click()
    page.keyboard.type("approve")
    dialog.get_by_role("button", name="Add tag").click()
    dialog.get_by_role("button", name="Save tags").click()
    dialog.wait_for(state="hidden")
    assert client.get_run(found.run_ids[1]).data.tags["mlflow_meta.decision"] == "approve"
    command = ["work", "-e", "approved", "--require-approval", "--json"]
    trainer = ["--tracking-uri", store.uri, "--", sys.executable, "-c", "pass"]
    done = CliRunner().invoke(main, [*command, *trainer])
    assert [run["run_id"] for run in json.loads(done.stdout)["runs"]] == [found.run_ids[1]]
    status = [client.get_run(run_id).info.status for run_id in found.run_ids]
    assert status == ["SCHEDULED", "FINISHED"]


def test_the_batch_has_a_report_that_the_ui_draws(store: MlflowStore, url: str, page: Page) -> None:
    from screenshots import run_page

    found = suggest(store, "sweep-b", n=3)
    batch = store.client.get_run(found.run_id)
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text))
    run = f"/#/experiments/{batch.info.experiment_id}/runs/{found.run_id}"
    page.goto(f"{url}{run}/artifacts/report.html")
    report = page.frame_locator("iframe.mlflow-html-iframe, iframe#html").first
    report.locator("#parallel .suggested").first.wait_for()
    assert report.locator("#parallel .suggested").count() == 3
    assert report.locator("#budget .interval").count() == 3
    report.get_by_role("button", name="predicted val_loss").click()
    assert report.locator("th[aria-sort=ascending]").count() == 1
    run_page(page, url, batch.info.experiment_id, found.run_id)
    assert "3 suggestions for sweep-b, chosen by" in page.inner_text("main")
    link = page.get_by_role("link", name="see them in their experiment")
    assert link.get_attribute("href") == found.view.removeprefix("/")
    # The harness runs in every frame, and asks for a storage that a sandbox does not have.
    ours = [words for words in said if "localStorage" not in words]
    assert not [words for words in ours if "Content Security" in words or "Error" in words]
    files = {file.path for file in store.client.list_artifacts(found.run_id)}
    assert {"report.html", "params.png"} <= files


def test_what_a_run_says_does_nothing_in_the_descriptions(
    store: MlflowStore, url: str, page: Page
) -> None:
    from screenshots import run_page

    experiment = experiment_id(store, "hostile")
    parts = [PAYLOADS[i : i + 12] for i in range(0, len(PAYLOADS), 12)]
    run_ids = []
    for part in parts:
        config = {**{text: "1" for text in part}, **{f"p{i}": text for i, text in enumerate(part)}}
        item = Suggestion(rank=1, config=config, mean=0.5, std=0.1, low=0.4, high=0.6)
        said = [f"Nearest {shown.code(text)}." for text in part]
        title = f"Suggestion 1 for {shown.code(part[0])}"
        text = note(item, part[-1], title=title, said=said)
        run = store.client.create_run(experiment, tags={"mlflow.note.content": text})
        run_ids.append(run.info.run_id)
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    for part, run_id in zip(parts, run_ids, strict=True):
        page.goto("about:blank")
        run_page(page, url, experiment, run_id)
        seen = page.evaluate(NOTE)
        assert seen["hit"] is None
        assert set(seen["tags"]) <= OF_A_NOTE, f"not ours: {set(seen['tags']) - OF_A_NOTE}"
        assert not seen["links"]
        for text in part:
            words = " ".join(shown.cut(text, shown.MAX_SHOWN).split())
            assert words.replace("`", "'") in " ".join(seen["text"].split()).replace("`", "'")
    assert "dialog" not in asked
    assert not [address for address in asked if ":9/" in address or "evil" in address]
    assert not [address for address in asked if "/hit" in address]
