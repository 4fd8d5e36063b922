"""What README and the other pages say: their Python runs, and they name what there is."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from conftest import fill
from mlflow import MlflowClient

from mlflow_meta.cli import main
from mlflow_meta.services.explore import explore
from mlflow_meta.services.harvest import harvest
from mlflow_meta.space import read_yaml
from mlflow_meta.space.constraints import Constraint
from mlflow_meta.store import MlflowStore

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
GUIDE = ROOT / "notebooks" / "guide.md"
ADMINISTRATION = ROOT / "docker" / "administration.md"
PAGES = (README, GUIDE, ROOT / "docker" / "README.md", ADMINISTRATION)
UNTOLD = {"--experiment-name", "--all-experiments"}  # -e, and what happens without it
PRINTED = {
    "Stopping early": r"",
    "Without MLflow": r"(\{'lr': .*, 'depth': \d+\}\n){3}",
    "Search engines": r"\{'lr': .*\} \S+ 0\.0 \d{3,}\n",  # the gap of 0 is a proof
    "scikit-learn": r"\(2,\) \(2,\)\n",
    "Optuna": r"\S+ \{'lr': \S+\}\n",
    "ConfigSpace": r"\{'model': \('mlp',\)\} True\n",
    "Gymnasium": r"\{'lr': .*, 'depth': \d+\} -?[\d.]+\n",
    "Your own implementations": r"",
}
"""Section of the guide that has Python -> what it prints."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def headings(page: Path) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)
    return re.findall(r"^#+ (.+)$", prose, re.M)


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def python_of(page: Path) -> list[tuple[str, str]]:
    """Each block of Python, behind the heading that it stands under."""
    found, under = [], ""
    for heading, code in re.findall(
        r"^#+ ([^\n]+)$|^```python\n(.*?)^```", text_of(page), re.M | re.S
    ):
        if code:
            found.append((under, code))
        under = heading or under
    return found


def run(code: str, names: dict[str, object]) -> str:
    """Run a block in a program that has these names; what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "block", "exec"), names)
    return printed.getvalue()


@pytest.fixture(scope="module")
def printed(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Section of the guide -> what its Python prints, all blocks in their order as one program."""
    folder = tmp_path_factory.mktemp("guide")
    uri = f"sqlite:///{shutil.copy(empty_database, folder / 'mlflow.db')}"
    fill(MlflowClient(uri, uri), folder)
    names: dict[str, object] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield {heading: run(code, names) for heading, code in python_of(GUIDE)}


@pytest.mark.parametrize("section", PRINTED)
def test_the_guides_python_prints_what_it_is_about(section: str, printed: dict[str, str]) -> None:
    assert re.fullmatch(PRINTED[section], printed[section]), printed[section]


def test_every_block_of_the_guide_is_looked_at_and_a_section_has_one() -> None:
    assert [heading for heading, _ in python_of(GUIDE)] == list(PRINTED)


def test_the_guides_space_file_and_constraints_are_read_as_they_are_meant() -> None:
    whole, rules = re.findall(r"^```yaml\n(.*?)^```", text_of(GUIDE), re.M | re.S)
    space = read_yaml(whole)
    assert space.params["depth"].when == {"model": ("tree",)}
    (rule,) = space.constraints
    assert rule.allows([{"depth": 9, "lr": 0.2}, {"depth": 9, "lr": 0.05}]).tolist() == [
        False,
        True,
    ]
    memory, layers = map(Constraint.read, yaml.safe_load(rules)["constraints"])
    assert memory.names == {"batch_size", "accumulate"}
    assert layers.allows([{"hidden_1": 8, "hidden_2": 16}, {"hidden_1": 8}]).tolist() == [
        False,
        True,
    ]


def test_readmes_python_schedules_three_runs(
    filled_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", filled_uri)
    ((_, code),) = python_of(README)
    assert "spearman" in run(code, {"__name__": "__main__"})
    experiment = client.get_experiment_by_name("sweep-a").experiment_id
    scheduled = client.search_runs([experiment], "attributes.status = 'SCHEDULED'")
    assert sorted(r.data.tags["mlflow_meta.rank"] for r in scheduled) == ["1", "2", "3"]


def test_the_administrators_python_removes_what_waits_and_its_view(
    store: MlflowStore, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    harvest(store)
    found = explore(store, "sweep-a", n=2, metric="val_loss")
    before = client.get_experiment_by_name("sweep-a")
    assert any(key.startswith("mlflow.sharedViewState.") for key in before.tags)
    ((_, code),) = python_of(ADMINISTRATION)
    assert run(code, {"__name__": "__main__"}) == ""
    after = client.get_experiment_by_name("sweep-a")
    assert not any(key.startswith("mlflow.sharedViewState.") for key in after.tags)
    left = {r.info.run_id for r in client.search_runs([after.experiment_id])}
    assert not left & set(found.run_ids)
    assert len(left) == 27, "what people have trained stays"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text_of(page))
    assert links
    for path, heading in links:
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), path
        if heading:
            assert heading in map(anchor, headings(there)), f"{path}#{heading}"


def test_the_guides_table_of_contents_is_its_headings_in_order() -> None:
    contents, _, _ = text_of(GUIDE).partition("\n## ")
    title, *sections = headings(GUIDE)
    assert title == "Guide"
    assert re.findall(r"\]\(#([^)]+)\)", contents) == [anchor(heading) for heading in sections]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_of_a_page_is_one_that_the_command_takes(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").touch()  # which lines read that others have written
    lines = re.findall(r"\bmlflow-meta ([a-z]+ [^`\n|]*-[^`\n|]*)[`\n]", text_of(page))
    assert lines
    for line in lines:
        name, *words = shlex.split(re.split(r" {2,}#| && ", line)[0], comments=True)
        if name not in main.commands:
            assert not line.startswith("--"), line
            continue
        try:
            main.commands[name].make_context(name, words)
        except click.UsageError as error:
            pytest.fail(f"{line}: {error.format_message()}")


def test_every_option_is_in_readme_or_the_guide() -> None:
    told = set(re.findall(r"(?<![\w-])--[a-z-]+", text_of(README) + text_of(GUIDE)))
    there = {
        option
        for command in main.commands.values()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    }
    assert there - told - UNTOLD == set()


def test_readme_is_read_in_one_go() -> None:
    assert 150 <= len(text_of(README).splitlines()) <= 170


def test_the_output_of_the_demo_is_that_of_a_real_one() -> None:
    shown = re.search(r"<!-- demo -->\n```text\n(.*?)```", text_of(README), re.DOTALL)
    assert shown is not None
    for words in ("rank", "80% interval", "got val_loss", "FINISHED", "Best val_loss of 16 runs"):
        assert words in shown[1]
