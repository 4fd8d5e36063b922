"""Columns of a frame of trials: how texts get types, and rows become configurations.

params.<name>, hardware.<name>, dataset.<name>, tags.<name>: see `dataset`
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mlflow_meta.trials import Config, ConfigValue

CONTEXT = ("hardware.", "dataset.", "tags.")
"""Prefixes of what is given for a run rather than chosen."""
DISTRIBUTION = "distribution."
"""Prefix of what params were drawn from, as `space.read_distribution` reads it."""

_LEADING_ZERO = re.compile(r"\s*[-+]?0\d")
MAX_CHARS = 100  # of a text that was chosen; a longer one is a document or a printed object
_MAX_ODD = 0.1  # share of texts that do not make a column of numbers one of texts
UNSET = ("", "None", "none", "null", "nan", "NaN", "NA")
"""Texts that mean that a number is not set."""

_UNSET_TEXTS = pa.array(UNSET)
_FLAGS = pa.array(["True", "False"])
# What all but a few texts of numbers look like, for Arrow; `number_of` reads the others.
_WHOLE = r"^(?:0|-?[1-9][0-9]{0,17})$"
_LONG = r"^-?[0-9]{19,}$"  # may or may not be too large for an integer of 64 bits
_PLAIN = r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?$"


def type_column(texts: Sequence[str | None]) -> pd.Series:
    """Type one column of logged texts, None where nothing was logged; see `type_texts`."""
    logged = np.flatnonzero([text is not None for text in texts])
    values = pa.array([text for text in texts if text is not None], pa.string())
    return type_texts(values, logged, len(texts))[0]


def type_texts(values: pa.StringArray, rows: np.ndarray, n: int) -> tuple[pd.Series, list[str]]:
    """Type one column of logged texts, once for the whole column.

    The narrowest of Int64, float64, boolean and string that holds every text. Texts that mean
    "not set" (None, nan, ...) are missing in a column of numbers, and a category in one of texts.
    So is the odd text where 9 of 10 are numbers; a printed object, which nobody chose, does not
    count against them.

    Args:
        values: `(m,)` texts that were logged.
        rows: `(m,)` the row of each, increasing.
        n: Rows of the column.

    Returns:
        `(n,)` the column; and the texts that it lacks because they are no numbers.
    """
    coded = values.dictionary_encode()
    codes = coded.indices.to_numpy()
    counts = np.bincount(codes, minlength=len(coded.dictionary))
    texts = coded.dictionary
    set_ = ~pc.is_in(texts, _UNSET_TEXTS).to_numpy(zero_copy_only=False)
    if set_.any() and pc.all(pc.is_in(texts.filter(pa.array(set_)), _FLAGS)).as_py():
        flags = pc.equal(texts, "True").to_numpy(zero_copy_only=False)
        return _scattered(flags, set_, codes, rows, n, "boolean"), []
    numbers, whole = _numbers(texts)
    known = ~np.isnan(numbers) & set_
    odd = set_ & ~known
    if known.any():
        strange = _choices(texts, odd)
        n_counted = counts[known].sum() + counts[strange].sum()
        # Where numbers are many, the few texts among them are slips; printed objects always are.
        if counts[strange].sum() <= _MAX_ODD * n_counted:
            left_out = [str(text) for text in texts.filter(pa.array(odd)).to_pylist()]
            if whole[known].all():
                exact = np.zeros(len(texts), dtype=np.int64)
                exact[known] = texts.filter(pa.array(known)).cast(pa.int64()).to_numpy()
                return _scattered(exact, known, codes, rows, n, "Int64"), left_out
            column = np.full(n, np.nan)
            column[rows] = np.where(known, numbers, np.nan)[codes]
            return pd.Series(column), left_out
    places = np.full(n, -1, dtype=np.int64)
    places[rows] = np.arange(len(rows))
    spread = values.take(pa.array(places, mask=places < 0))
    return pd.Series(pd.array(spread, dtype="string")), []


def _scattered(
    of_text: np.ndarray, known: np.ndarray, codes: np.ndarray, rows: np.ndarray, n: int, dtype: str
) -> pd.Series:
    """A nullable column `(n,)` with the value of each distinct text where it is known."""
    column = np.zeros(n, dtype=of_text.dtype)
    missing = np.ones(n, dtype=bool)
    column[rows], missing[rows] = of_text[codes], ~known[codes]
    made = pd.arrays.BooleanArray if dtype == "boolean" else pd.arrays.IntegerArray
    return pd.Series(made(column, missing))


def _choices(texts: pa.StringArray, among: np.ndarray) -> np.ndarray:
    """Which of the texts may have been chosen; looked at only where `among` holds."""
    chosen = among.copy()
    for i in np.flatnonzero(among):
        chosen[i] = is_choice(texts[int(i)].as_py())
    return chosen


def _numbers(texts: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct texts as floats, NaN for what is no number; and which of them are whole."""
    plain = pc.match_substring_regex(texts, _PLAIN).to_numpy(zero_copy_only=False)
    numbers = np.full(len(texts), np.nan)
    numbers[plain] = texts.filter(pa.array(plain)).cast(pa.float64()).to_numpy()
    whole = plain & (numbers == np.floor(numbers))
    some = texts.filter(pa.array(whole))
    is_long = pc.match_substring_regex(some, _LONG).to_numpy(zero_copy_only=False)
    plain[np.flatnonzero(whole)[is_long]] = False
    whole[whole] = pc.match_substring_regex(some, _WHOLE)
    for i in np.flatnonzero(~plain):
        number = number_of(texts[int(i)].as_py())
        numbers[i] = np.nan if number is None else number
        whole[i] = isinstance(number, int)
    return np.where(np.isfinite(numbers), numbers, np.nan), whole


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


def number_of(text: str) -> int | float | None:
    """The finite number that a logged text is; None for any other text."""
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
