"""What all parts of the quality benchmark share: rows that survive an interruption, and tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

Row = dict[str, Any]
Job = tuple[Row, Callable[[], list[Row]]]
"""What is measured, and how: the rows of a job begin with what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One number that is needed.

    Attributes:
        what: Which number.
        value: What was measured, in the units of `low` and `high`.
        low: Least value that will do.
        high: Greatest value that will do.
    """

    what: str
    value: float
    low: float = float("-inf")
    high: float = float("inf")

    @property
    def met(self) -> bool:
        """Whether it will do; nan, for what could not be measured, will not."""
        return self.low <= self.value <= self.high

    def __str__(self) -> str:
        needed = " to ".join(f"{end:g}" for end in (self.low, self.high) if abs(end) < float("inf"))
        if self.low == float("-inf"):
            needed = f"<= {needed}"
        elif self.high == float("inf"):
            needed = f">= {needed}"
        verdict = "met" if self.met else "MISSED"
        return f"{self.what:<58} {self.value:>9.4g}   needed {needed:<12} {verdict}"


class Rows:
    """Rows that were measured, in a parquet file where one is named."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        there = path is not None and path.exists()
        self.rows: list[Row] = pd.read_parquet(path).to_dict("records") if there else []

    def measure(self, jobs: Sequence[Job]) -> pd.DataFrame:
        """The rows of the jobs; those that the file has are not measured again."""
        wanted: list[Row] = []
        start = time.perf_counter()
        for i, (what, run) in enumerate(jobs):
            found = [row for row in self.rows if what.items() <= row.items()]
            if not found:
                found = [{**what, **row} for row in run()]
                self.rows += found
                if self.path is not None:
                    pd.DataFrame(self.rows).to_parquet(self.path)
                words = " ".join(str(value) for value in what.values())
                took = time.perf_counter() - start
                print(f"{i + 1}/{len(jobs)} {took:.0f} s: {words}", file=sys.stderr, flush=True)
            wanted += found
        return pd.DataFrame(wanted)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lines with columns one under the other; the first is words, the others are numbers."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
