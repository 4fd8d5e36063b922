"""Pages: the report as one HTML file that needs nothing else, whatever the runs say.

Whoever may log a run may write anything into it. So Jinja2 escapes every text, the charts make
text nodes of what stands in a data island, and the page's policy (CSP) lets no other script run
than ours, by its hash, and nothing be asked of any server.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from mlflow_meta.pages.charts import charts
from mlflow_meta.pages.moment import runs_before, suggested_now
from mlflow_meta.pages.story import Story, waiting
from mlflow_meta.pages.words import words

__all__ = ["Story", "page", "runs_before", "suggested_now", "waiting"]


def page(story: Story) -> bytes:
    """The report as HTML: tiles, charts, and a table that sorts."""
    style, script = _file("report.css"), _file("report.js")
    text = _template().render(
        **words(story),
        data=charts(story),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    return text.encode("utf-8", "replace")


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return environment.from_string(_file("report.html"))


def _file(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
