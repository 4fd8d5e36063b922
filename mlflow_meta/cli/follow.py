"""The command that follows a run to its sources and to what has come of it: lineage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mlflow_meta import shown
from mlflow_meta.cli import options
from mlflow_meta.cli.running import emit, humane, open_store, working
from mlflow_meta.cli.terminal import echo, plain

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from mlflow_meta.services.lineage import Lineage, Node

MAX_SHOWN = 10  # nodes that hang from one, in a terminal; --json has all
_UNBROKEN = (
    10_000  # columns, so that an id is on one line and can be copied, however deep it stands
)

# Heavy imports wait inside the commands: `mlflow-meta --help` must answer at once.


@click.command()
@click.argument("run_id")
@options.tracking_uri
@options.as_json
@humane
def lineage(run_id: str, tracking_uri: str | None, as_json: bool) -> None:
    """Show what a run comes from, and what has come of it. Writes nothing.

    RUN_ID is any run: one of a team's, a harvest, a training, or a suggested one.

    \b
    Example:
        mlflow-meta lineage 7c1f0d5b2e7b4c56a2f0b5d1c9e8a734
    Next:
        mlflow-meta report -e sweep-7
    """
    store = open_store(tracking_uri)
    from mlflow_meta.services.lineage import lineage as run

    with working("looking for the run") as say:
        found = run(store, run_id, progress=say)
    root = store.uri.rstrip("/") if store.uri.startswith("http") else ""
    if as_json:
        emit(_data(found, root))
        return
    _draw(found, root)
    for remark in found.remarks:
        echo(remark, err=True)


def _data(found: Lineage, root: str) -> dict[str, Any]:
    """The lineage as plain data; addresses are whole where the server's is known."""
    return {
        "run": _node_data(found.run, root),
        "up": [_node_data(node, root) for node in found.up],
        "down": [_node_data(node, root) for node in found.down],
        "remarks": list(found.remarks),
    }


def _node_data(node: Node, root: str) -> dict[str, Any]:
    return {
        "role": node.role.value,
        "id": node.id,
        "address": f"{root}{node.address}" if node.address else "",
        "name": node.name,
        "status": node.status,
        "metric": node.metric,
        "value": node.value,
        "said": node.said,
        "children": [_node_data(child, root) for child in node.children],
    }


def _draw(found: Lineage, root: str) -> None:
    """The lineage as a tree, whose ids can be copied: no line is broken."""
    from rich.console import Console
    from rich.tree import Tree

    tree = Tree(_line(found.run, root))
    for title, nodes, nothing in (
        ("comes from", found.up, "nothing that mlflow-meta knows of"),
        ("has led to", found.down, "nothing yet"),
    ):
        side = tree.add(title if nodes else f"{title} {nothing}")
        _hang(side, nodes, root)
    Console(highlight=False, width=_UNBROKEN).print(tree)


def _hang(tree: Tree, nodes: Sequence[Node], root: str) -> None:
    # What something hangs from tells more than what has led nowhere.
    shown = sorted(nodes, key=lambda node: not node.children)[:MAX_SHOWN]
    for node in shown:
        _hang(tree.add(_line(node, root)), node.children, root)
    if len(nodes) > len(shown):
        tree.add(f"... and {len(nodes) - len(shown)} more: --json")


def _line(node: Node, root: str) -> Text:
    """A node in words; its id is a link where the server's address is known."""
    is_linked = bool(root and node.address)
    linked = plain(node.id, f"link {root}{node.address}" if is_linked else "")
    got = "" if math.isnan(node.value) else f"{node.metric} {shown.number(node.value)}"
    words = [f'"{node.name}"' if node.name else "", node.status, got, node.said]
    said = ", ".join(filter(None, words))
    line = plain(f"{node.role.value} ").append_text(linked).append_text(plain(f"  {said}"))
    line.rstrip()
    return line
