r"""Texts that come from runs, as they may be shown: in a terminal, Markdown, CSV, a picture.

Whoever may log a run may write anything into it. Here it is made a text that is only read, whatever
it says. HTML is made by Jinja2 and by text nodes alone, see `pages`; JSON escapes by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

MAX_SHOWN = 120  # characters of a text in a note
_JOINERS = "\u200c\u200d"  # of emojis and of Persian; they are no marks of direction
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def line(text: str) -> str:
    r"""`text` on one line: what moves a cursor, ends a line or turns a direction, as `\x1b`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _JOINERS else _spelt(c) for c in text)


def lines(text: str) -> str:
    """The same, but its lines stay lines: of words that are ours in between."""
    return "\n".join(map(line, text.split("\n")))


def cut(text: str, n: int) -> str:
    """At most `n` characters of it on one line, with a mark where there are more."""
    short = line(text)
    return short if len(short) <= n else short[: n - 1] + "\u2026"


def kept(value: float) -> float:
    """A prediction as MLflow is told it: 6 digits. The UI shows every one, and it has no more."""
    return float(f"{value:.6g}")


def number(value: float) -> str:
    """A number to 5 digits, and a dash for nan.

    Of what is `kept`, so that who shows a prediction and who reads it from MLflow show the same.
    """
    return "-" if value != value else f"{kept(value):.5g}"


def share(value: float) -> str:
    """A share of 1 in percent, and a dash for nan."""
    return "-" if value != value else f"{value:.0%}"


def code(text: str) -> str:
    """`text` as Markdown's code, out of which it can't break; not for the cell of a table.

    What looks like HTML is text instead, each sign of it by its number.
    """
    plain = " ".join(cut(text, MAX_SHOWN).split())
    if "<" in plain:  # MLflow's UI looks for HTML before it looks for code
        return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in plain)
    plain = plain.replace("`", "'")
    return f"`{plain}`" if plain else "`''`"


def cell(text: str) -> str:
    """`text` as code in a cell of a Markdown table."""
    return code(text).replace("|", r"\|")


def picture(text: str, n: int) -> str:
    """At most `n` characters for Matplotlib, to which a dollar sign would start mathematics."""
    return cut(text, n).replace("$", r"\$")


def duration(seconds: float) -> str:
    """A time to two digits, in the unit that people would say it in."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= size * (1.0 if unit == "s" else 1.5):
            return f"{_two_digits(seconds / size)} {unit}"
    return f"{_two_digits(seconds * 1000)} ms"


def _two_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


def csv(frame: pd.DataFrame) -> bytes:
    """`frame` as CSV, of which a spreadsheet computes nothing.

    A text that a spreadsheet would take for a formula gets an apostrophe before it, as OWASP says;
    numbers stay as they are. Lines end as RFC 4180 says, so that a lone end of line is quoted.
    """
    harmless = frame.map(_harmless).rename(columns=lambda name: _harmless(str(name)))
    return harmless.to_csv(index=False, lineterminator="\r\n").encode("utf-8", "replace")


def _harmless(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return f"'{value}"
    return value


def _spelt(char: str) -> str:
    if char.isspace() and char not in "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029":
        return " "
    return char.encode("unicode_escape").decode()
