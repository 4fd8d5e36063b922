"""Take pictures of suggested runs in the stock MLflow UI, with headless Chromium.

Needs playwright (`pip install playwright`, whose own browsers are not used) and Chromium on the
PATH (`apt-get install chromium`):

    python tests/screenshots.py --store sqlite:///mlflow.db --experiment demo-digits

It starts `mlflow server` on the store, writes `suggested-runs.png` (the runs table, in the view
that `mlflow-meta suggest` prints), `suggested-run.png` (the page of the uppermost SCHEDULED
run) and, of the page that `mlflow-meta report --out report.html` writes, `report.png`, and stops
the server. `chromium` and `runs_table` are for tests that look at the UI.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from playwright.sync_api import Page, ViewportSize, sync_playwright
from servers import mlflow_server

PAGE_S = 60.0
README = Path(__file__).parent.parent / "README.md"
SETTLE_MS = 1000
SIZE: ViewportSize = {"width": 1400, "height": 700}  # pixels
REPORT_SIZE: ViewportSize = {"width": 1180, "height": 1130}
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# MLflow's chat panel opens by itself over a third of the page on a browser's first visit.
VISITED = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
# A row is drawn as two elements, pinned columns and others; rows outside the frame exist too.
ROWS = """() => {
    const names = new Map([...document.querySelectorAll('.ag-header-cell')].map(
        cell => [cell.getAttribute('col-id'), cell.innerText.trim()]));
    const frame = document.querySelector('.ag-body-viewport').getBoundingClientRect();
    const rows = new Map();
    for (const cell of document.querySelectorAll('.ag-row .ag-cell')) {
        const box = cell.getBoundingClientRect();
        const name = names.get(cell.getAttribute('col-id'));
        if (!name || box.top < frame.top || box.bottom > frame.bottom
            || box.right <= frame.left || box.left >= frame.right) continue;
        const row = cell.closest('.ag-row');
        const index = Number(row.getAttribute('row-index'));
        if (!rows.has(index)) rows.set(index, {run_id: row.getAttribute('row-id')});
        rows.get(index)[name] = (cell.querySelector('a') ?? cell).innerText.trim();
    }
    return [...rows.keys()].sort((a, b) => a - b).map(index => rows.get(index));
}"""


@contextmanager
def chromium() -> Iterator[Page]:
    """Start Debian's headless Chromium, and yield an empty page."""
    path = shutil.which("chromium")
    if path is None:
        raise FileNotFoundError("No chromium on the PATH: `apt-get install chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        try:
            context = browser.new_context(viewport=SIZE)
            context.set_default_timeout(1000 * PAGE_S)
            context.add_init_script(VISITED)
            yield context.new_page()
        finally:
            browser.close()


def runs_table(
    page: Page, base_url: str, experiment_id: str, view: str = ""
) -> list[dict[str, str]]:
    """Open an experiment's runs table, as a first visitor finds it, and read what is in sight.

    Args:
        page: An empty one.
        base_url: The server's address.
        experiment_id: Which experiment.
        view: The address of a view, from the server's root; empty for the default table.

    Returns:
        The rows from the top, each the text of its cells by the column's heading (`Run Name`,
        `Created`, `Source`, ...), whole where the picture shortens it, and `run_id`.
    """
    default = f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    page.goto(base_url + (view or default))
    page.locator(".ag-center-cols-container .ag-row").first.wait_for()
    return _rows(page)


def sort_table(page: Page, column: str) -> list[dict[str, str]]:
    """Click the heading of a column, such as `metrics.`loss``, in the table that is open."""
    page.locator(f'.ag-header-cell[col-id="{column}"]').click()
    page.wait_for_timeout(SETTLE_MS)
    return _rows(page)


def _rows(page: Page) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    while not rows or rows != page.evaluate(ROWS):  # until it stands still
        rows = page.evaluate(ROWS)
        page.wait_for_timeout(SETTLE_MS)
    return rows


def run_page(page: Page, base_url: str, experiment_id: str, run_id: str) -> None:
    """Open a run's page, with the whole of its description."""
    page.goto(
        f"{base_url}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"
    )
    page.get_by_text("Description", exact=True).first.wait_for()
    page.wait_for_timeout(SETTLE_MS)
    folded = page.get_by_text("Show more", exact=True)
    if folded.count():
        folded.first.click()


def report_page(page: Page, store_uri: str, experiment_name: str) -> None:
    """Open the report of an experiment, without its table of suggestions, which is in README."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        command = ["report", "-e", experiment_name, "--out", str(file)]
        subprocess.run(
            [Path(sys.executable).with_name("mlflow-meta"), *command, "--tracking-uri", store_uri],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        page.set_viewport_size(REPORT_SIZE)
        page.goto(file.as_uri())
        page.locator("#parallel path").first.wait_for()
        page.locator("section:has(#suggestions)").evaluate("section => section.remove()")


def show_in_readme(output: str) -> None:
    """Put what the demo printed into README, less the end of lines and what is on this machine."""
    table, _, _ = output.partition("The store:")
    lines = [line.rstrip() for line in table.strip("\n").splitlines() if line.strip()]
    block = "<!-- demo -->\n```text\n" + "\n".join(lines) + "\n```\n<!-- /demo -->"
    text = README.read_text(encoding="utf-8")
    README.write_text(
        re.sub(r"<!-- demo -->.*<!-- /demo -->", lambda _: block, text, flags=re.DOTALL),
        encoding="utf-8",
    )


def main() -> None:
    """Take both pictures; with --output, show the demo's output in README too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--store", required=True, metavar="URI", help="sqlite:///mlflow.db")
    parser.add_argument("--experiment", required=True, metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("notebooks/images"), metavar="FOLDER")
    parser.add_argument("--output", type=Path, metavar="FILE", help="demo's output, for README")
    arguments = parser.parse_args()
    if arguments.output is not None:
        show_in_readme(arguments.output.read_text(encoding="utf-8"))
    with mlflow_server(arguments.store) as url, chromium() as page:
        client = MlflowClient(url)
        experiment = client.get_experiment_by_name(arguments.experiment)
        if experiment is None:
            parser.error(f"{arguments.store} has no experiment {arguments.experiment!r}")
        scheduled = client.search_runs(
            [experiment.experiment_id], "attributes.status = 'SCHEDULED'", max_results=1
        )
        if not scheduled:
            parser.error(f"no run in {arguments.experiment!r} is SCHEDULED: suggest some first")
        arguments.out.mkdir(parents=True, exist_ok=True)
        key = next(k for k in experiment.tags if k.startswith("mlflow.sharedViewState."))
        view = f"/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
        view += f"&viewStateShareKey={key.removeprefix('mlflow.sharedViewState.')}"
        runs_table(page, url, experiment.experiment_id, view)
        page.screenshot(path=arguments.out / "suggested-runs.png")
        run_page(page, url, experiment.experiment_id, scheduled[0].info.run_id)
        page.screenshot(path=arguments.out / "suggested-run.png")
        report_page(page, arguments.store, arguments.experiment)
        page.screenshot(path=arguments.out / "report.png")


if __name__ == "__main__":
    main()
