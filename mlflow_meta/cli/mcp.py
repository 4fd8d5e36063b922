"""The command that serves assistants: mcp."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from mlflow_meta.cli import options
from mlflow_meta.cli.running import emit, humane, open_store
from mlflow_meta.errors import NotInstalled

if TYPE_CHECKING:
    from mlflow_meta.store import MlflowStore

# Heavy imports wait inside the commands: `mlflow-meta --help` must answer at once.


@click.command()
@click.option(
    "--allow-writing",
    is_flag=True,
    help="Also offer the tool `schedule`, which writes SCHEDULED runs. Without it nothing writes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the tools as one JSON object instead.")
@options.tracking_uri_endless
@humane
def mcp(allow_writing: bool, as_json: bool, tracking_uri: str | None) -> None:
    """Serve assistants with tools of the Model Context Protocol, over stdin and stdout.

    The client starts this command: experiments, best, explain, predict and suggest look, and write
    nothing.

    \b
    Example:
        mlflow-meta mcp --tracking-uri http://localhost:5000
        mlflow-meta mcp --json
    """
    try:
        from mlflow_meta.mcp.server import server
    except ImportError as error:
        raise NotInstalled(
            f"The MCP server needs what is not installed here ({error}): pip install mcp"
        ) from error
    context = click.get_current_context()

    def opened() -> MlflowStore:
        with context.scope(cleanup=False):  # a tool's thread knows no --deadline
            return open_store(tracking_uri, endless=True)

    made = server(opened, allow_writing=allow_writing)
    if as_json:
        tools = asyncio.run(made.list_tools())
        emit({"tools": [tool.model_dump(by_alias=True, exclude_none=True) for tool in tools]})
        return
    made.run()
