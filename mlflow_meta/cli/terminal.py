"""The terminal: what is written to it, so that texts from the server are only read.

A name of a run may hold what clears a screen, forges a line or types an answer. Words are printed
by these functions alone; JSON escapes such characters by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlflow_meta import shown

if TYPE_CHECKING:
    from rich.text import Text


def echo(words: str, *, err: bool = False) -> None:
    """Print lines of words on stdout, or on stderr."""
    click.echo(shown.lines(words), err=err)  # noqa: TID251 - here it is made harmless


def plain(text: str, style: str = "") -> Text:
    """A text that rich prints as it is: no markup, no control character."""
    from rich.text import Text  # `mlflow-meta --help` must answer at once

    return Text(shown.line(text), style)
