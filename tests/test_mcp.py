"""The MCP server on real stores, asked by the SDK's own client; once as a subprocess."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import fill
from mcp import Client, StdioServerParameters
from mcp.server.mcpserver import MCPServer
from mlflow import MlflowClient

from mlflow_meta.cli import main
from mlflow_meta.known import known_to
from mlflow_meta.mcp.server import server
from mlflow_meta.proposal import context_of, in_context
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.suggest import suggest
from mlflow_meta.services.train import train
from mlflow_meta.store import MlflowStore, registry

LOOKS = ["experiments", "best", "explain", "predict", "suggest"]
CONFIGS: list[dict[str, Any]] = [
    {"model": "mlp", "lr": 0.01, "units": 64},
    {"model": "tree", "lr": 0.9, "depth": 3, "nonsense": True},
]


@pytest.fixture(scope="module")
def trained(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a history and its champion."""
    folder = tmp_path_factory.mktemp("mcp")
    uri = f"sqlite:///{shutil.copy(empty_database, folder / 'mlflow.db')}"
    fill(MlflowClient(tracking_uri=uri, registry_uri=uri), folder, n=14)
    store = MlflowStore(uri)
    harvest(store)
    train(store, metric="val_loss", kinds=["linear"])
    return uri


@pytest.fixture
def uri(trained: str, tmp_path: Path) -> str:
    """A copy of it, to write to."""
    return f"sqlite:///{shutil.copy(trained.removeprefix('sqlite:///'), tmp_path / 'mlflow.db')}"


def served(uri: str) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable,
        args=["-c", "from mlflow_meta.cli import main; main()", "mcp"],
        env={"MLFLOW_TRACKING_URI": uri},
    )


def talk(to: StdioServerParameters | MCPServer, words: Callable[[Client], Awaitable[None]]) -> None:
    async def session() -> None:
        async with Client(to) as client:
            await words(client)

    asyncio.run(session())


async def answer(client: Client, tool: str, **arguments: object) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


async def refusal(client: Client, tool: str, **arguments: object) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)


def test_an_assistant_looks_at_everything_and_nothing_is_written(trained: str) -> None:
    database = Path(trained.removeprefix("sqlite:///"))
    before = database.read_bytes()
    store = MlflowStore(trained)
    runs = store.client.search_runs([store.experiment_id("sweep-a")], "status = 'FINISHED'")
    got = {run.info.run_id: run.data.metrics.get("val_loss", math.nan) for run in runs}

    async def looks(client: Client) -> None:
        assert [tool.name for tool in (await client.list_tools()).tools] == LOOKS
        assert "schedule" in await refusal(client, "schedule", experiment="sweep-a")

        there = await answer(client, "experiments")
        assert there["models"] == [{"name": "mlflow-meta-val_loss", "metric": "val_loss"}]
        assert [one["name"] for one in there["experiments"]] == ["sweep-a", "sweep-b"]
        assert set(there["experiments"][0]["varied_params"]) == {
            "model", "lr", "depth", "units", "seed",
        }  # fmt: skip

        leading = await answer(client, "best", experiment="sweep-a", metric="val_loss", n=3)
        least = sorted(value for value in got.values() if value == value)[:3]
        assert [one["value"] for one in leading["trials"]] == least
        assert all(got[one["run_id"]] == one["value"] for one in leading["trials"])
        highest = await answer(client, "best", experiment="sweep-a", metric="accuracy", n=1)
        assert highest["direction"] == "maximize" and highest["trials"][0]["value"] > 0.7

        said = await answer(client, "predict", experiment="sweep-a", configs=CONFIGS)
        assert said["unknown_params"] == ["nonsense"]
        good, bad = said["predictions"]
        assert good["low_80"] <= good["prediction"] <= good["high_80"]
        assert good["prediction"] < bad["prediction"]
        assert good["best_known"] == pytest.approx(least[0])
        champion = registry.champion(store)
        known = known_to(store, champion)
        space, model = champion.model.encoder.space, champion.model
        rows = in_context(
            [space.active(c) for c in CONFIGS], space, "sweep-a",
            context_of(known.trials, space, "sweep-a"),
        )  # fmt: skip
        means = [one["prediction"] for one in said["predictions"]]
        np.testing.assert_allclose(means, model.predict(rows).mean, rtol=1e-9)

        found = await answer(client, "suggest", experiment="sweep-a", n=4, where=["model=mlp"])
        expected = suggest(store, "sweep-a", n=4, where=["model=mlp"], search_s=10.0, dry_run=True)
        assert [one["params"] for one in found["suggestions"]] == [
            dict(one.config) for one in expected.items
        ]
        assert {one["run_id"] for one in found["suggestions"]} == {None}

        why = await answer(client, "explain", experiment="sweep-a")
        assert {one["param"] for one in why["importance"]} == {"model", "lr", "depth", "units"}
        assert why["sentence"].startswith("val_loss is best with lr near 0.0")

    talk(served(trained), looks)
    assert database.read_bytes() == before


def test_only_who_is_allowed_to_write_schedules_and_no_run_twice(uri: str) -> None:
    client = MlflowClient(tracking_uri=uri)

    async def schedules(session: Client) -> None:
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert list(tools) == [*LOOKS, "schedule"]
        assert all(tools[name].annotations.read_only_hint for name in LOOKS)
        assert not tools["schedule"].annotations.read_only_hint
        assert not tools["schedule"].annotations.destructive_hint
        done = await answer(session, "schedule", experiment="sweep-a", n=2)
        for one in done["suggestions"]:
            saved = client.get_run(one["run_id"])
            assert saved.info.status == "SCHEDULED"
            assert saved.data.params == {k: str(v) for k, v in one["params"].items()}
        again = await answer(session, "schedule", experiment="sweep-a", n=2)
        assert again["suggestions"] == done["suggestions"]

    talk(server(lambda: MlflowStore(uri), allow_writing=True), schedules)


def test_what_goes_wrong_is_told_in_our_words_and_the_server_lives_on(
    trained: str, sqlite_uri: str
) -> None:
    async def errs(client: Client) -> None:
        assert "no experiment 'sweep-x'" in await refusal(client, "explain", experiment="sweep-x")
        said = await refusal(client, "predict", experiment="sweep-a", configs=CONFIGS, metric="f1")
        assert "Run `mlflow-meta train --metric f1`" in said
        said = await refusal(client, "suggest", experiment="sweep-a", where=["lr"])
        assert "model=mlp" in said
        for wrong in ({"n": 0}, {"n": 101}, {"n": "many"}):
            assert "n" in await refusal(client, "suggest", experiment="sweep-a", **wrong)
        said = await refusal(client, "best", experiment="sweep-a", metric="val_loss", task="x")
        assert "'sweep-a' has no trial of the task 'x'; it has 'sweep-a'" in said
        assert (await answer(client, "experiments"))["experiments"]

    async def has_nothing(client: Client) -> None:
        assert "mlflow-meta harvest" in await refusal(client, "experiments")

    talk(server(lambda: MlflowStore(trained), allow_writing=False), errs)
    talk(server(lambda: MlflowStore(sqlite_uri), allow_writing=False), has_nothing)


def test_every_tool_and_argument_is_described() -> None:
    shown = json.loads(CliRunner().invoke(main, ["mcp", "--json"]).stdout)
    assert [tool["name"] for tool in shown["tools"]] == LOOKS
    shown = json.loads(CliRunner().invoke(main, ["mcp", "--allow-writing", "--json"]).stdout)
    assert [tool["name"] for tool in shown["tools"]] == [*LOOKS, "schedule"]
    for tool in shown["tools"]:
        assert len(tool["description"]) > 60
        assert tool["outputSchema"]["type"] == "object"
        for argument in tool["inputSchema"]["properties"].values():
            assert argument["description"]


def test_without_the_extra_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['mcp'] = None\nfrom mlflow_meta.cli import main; main(['mcp'])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (out.returncode, out.stdout) == (1, "")
    assert "pip install mcp" in out.stderr and len(out.stderr.splitlines()) == 1
