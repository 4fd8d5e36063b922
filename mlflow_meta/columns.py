"""Columns of a frame of trials: how texts get types, and rows become configurations.

params.<name>, hardware.<name>, dataset.<name>, tags.<name>: see `dataset`
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlflow_meta.trials import Config, ConfigValue

CONTEXT = ("hardware.", "dataset.", "tags.")
"""Prefixes of what is given for a run rather than chosen."""

_LEADING_ZERO = re.compile(r"\s*[-+]?0\d")
MAX_CHARS = 100  # of a text that was chosen; a longer one is a document or a printed object
_MAX_ODD = 0.1  # share of texts that do not make a column of numbers one of texts
_UNSET = frozenset({"", "None", "none", "null", "nan", "NaN", "NA"})


def type_column(texts: Sequence[str | None]) -> pd.Series:
    """Type one column of logged texts, once for the whole column.

    The narrowest of Int64, float64, boolean and string that holds every text. Texts that mean
    "not set" (None, nan, ...) are missing in a column of numbers, and a category in one of texts.
    So is the odd text where 9 of 10 are numbers; a printed object, which nobody chose, does not
    count against them.
    """
    texts = list(texts)
    logged = Counter(text for text in texts if text is not None and text not in _UNSET)
    if logged and all(text in ("True", "False") for text in logged):
        flags = [None if text not in logged else text == "True" for text in texts]
        return pd.Series(pd.array(flags, dtype="boolean"))
    numbers = {text: _number(text) for text in logged}
    counted = {text: count for text, count in logged.items() if is_choice(text)}
    odd = sum(count for text, count in counted.items() if numbers[text] is None)
    if odd <= _MAX_ODD * sum(counted.values()):
        numbers = {text: number for text, number in numbers.items() if number is not None}
    if numbers and all(number is not None for number in numbers.values()):
        values = [numbers.get(text) if text is not None else None for text in texts]
        if all(isinstance(number, int) for number in numbers.values()):
            return pd.Series(pd.array(values, dtype="Int64"))
        return pd.Series([np.nan if v is None else float(v) for v in values], dtype="float64")
    return pd.Series(pd.array(texts, dtype="string"))


def is_choice(text: str) -> bool:
    """Whether somebody may have chosen this text: it is short, and on one line."""
    return len(text) <= MAX_CHARS and text.isprintable()


def columns_with(frame: pd.DataFrame, *prefixes: str) -> list[str]:
    """The columns of a frame whose name starts with one of the prefixes, in their order."""
    return [str(column) for column in frame.columns if str(column).startswith(prefixes)]


def config_of(row: Mapping[Any, Any]) -> dict[str, ConfigValue]:
    """The configuration in one row of a frame: its `params.*` that are set, as Python values."""
    config: dict[str, ConfigValue] = {}
    for name, value in row.items():
        if str(name).startswith("params.") and not pd.isna(value):
            plain = value.item() if isinstance(value, np.generic) else value
            assert isinstance(plain, str | int | float | bool)
            config[str(name).removeprefix("params.")] = plain
    return config


def frame_of(configs: Sequence[Config], names: Sequence[str]) -> pd.DataFrame:
    """`configs` as a frame of `params.<name>` columns, missing where a config lacks the name."""
    return pd.DataFrame(
        {f"params.{name}": [config.get(name) for config in configs] for name in names},
        index=range(len(configs)),
    )


def _number(text: str) -> int | float | None:
    if "_" in text or not text.isascii():
        return None  # Python would read 1_000, but whoever logged it did not mean a number
    if _LEADING_ZERO.match(text):
        return None  # a label such as 007, which no number spells
    try:
        whole = int(text)
        return whole if abs(whole) < 2**63 and str(whole) == text else float(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
