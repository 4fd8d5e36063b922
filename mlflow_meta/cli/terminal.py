"""The terminal: what is written to it, so that texts from the server are only read.

A name of a run may hold what clears a screen, forges a line or types an answer. Words are printed
by these functions alone; JSON escapes such characters by itself.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from mlflow_meta import shown

if TYPE_CHECKING:
    from rich.text import Text


def echo(words: str, *, err: bool = False) -> None:
    """Print lines of words on stdout, or on stderr."""
    click.echo(shown.lines(words), err=err)  # noqa: TID251 - here it is made harmless


def say_next(command: str, program: str = "") -> None:
    """Say the likely next command on stderr, for the server that this one was given.

    Args:
        command: The command of ours; `--tracking-uri` is added where it was typed, unless it holds
            a password.
        program: What it runs, behind ` -- `.
    """
    context = click.get_current_context()
    uri = context.params.get("tracking_uri")
    if context.get_parameter_source("tracking_uri") is ParameterSource.COMMANDLINE and uri:
        command += f" --tracking-uri {'URI' if urlsplit(uri).password else shlex.quote(uri)}"
    echo(f"Next: {command}{f' -- {program}' if program else ''}", err=True)


def plain(text: str, style: str = "") -> Text:
    """A text that rich prints as it is: no markup, no control character."""
    from rich.text import Text  # `mlflow-meta --help` must answer at once

    return Text(shown.line(text), style)
