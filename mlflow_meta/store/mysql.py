"""Reading MySQL and MariaDB, for which ADBC has no driver, as Arrow columns.

A driver makes Python objects of each cell, which takes longer than all else. So the server joins
the rows of a run into one text, as lines of CSV, and Arrow takes them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from pyarrow import csv

from mlflow_meta.errors import Unreadable

BATCH_CHARS = 1 << 24  # of one batch, and a run more; bounds what is in memory beside the columns
MAX_RUN_BYTES = 2**32 - 1  # of one run's rows; the server cuts at this or at max_allowed_packet
_BEGIN = (
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
)


@contextmanager
def asking(url: sa.URL) -> Iterator[Callable[[sa.Select[Any]], Iterator[pa.RecordBatch]]]:
    """How to ask the database; all answers are of one moment.

    The rows of an answer are grouped by their first column. All columns are texts: what is a
    number is to be cast.
    """
    engine = sa.create_engine(url)

    def query(select: sa.Select[Any]) -> Iterator[pa.RecordBatch]:
        streaming = connection.execution_options(stream_results=True)
        n_columns = len(select.selected_columns)
        lines: list[str] = []
        n_chars = 0
        for (text,) in streaming.execute(_as_csv(select)):
            lines.append(text)
            n_chars += len(text)
            if n_chars > BATCH_CHARS:
                yield from _parsed(lines, n_columns)
                lines, n_chars = [], 0
        for _, _, message in connection.exec_driver_sql("SHOW WARNINGS"):
            raise Unreadable(f"what it said may not be whole: {message}")
        yield from _parsed(lines, n_columns)

    try:
        with engine.connect() as connection:
            limit = f"SET SESSION group_concat_max_len = {MAX_RUN_BYTES}"
            for statement in (limit, *_BEGIN):
                connection.exec_driver_sql(statement)
            yield query
    finally:
        engine.dispose()


def _as_csv(select: sa.Select[Any]) -> sa.Select[Any]:
    rows = select.subquery()
    quoted = [sa.func.concat('"', sa.func.replace(c, '"', '""'), '"') for c in rows.c]
    line = sa.func.concat_ws(",", *(sa.func.coalesce(cell, "") for cell in quoted))
    return sa.select(sa.func.aggregate_strings(line, "\n")).group_by(next(iter(rows.c)))


def _parsed(lines: list[str], n_columns: int) -> Iterator[pa.RecordBatch]:
    if not lines:
        return
    # Without an end of line Arrow takes a last cell that is not set for one that is empty.
    content = "".join(f"{line}\n" for line in lines).encode()
    names = [str(i) for i in range(n_columns)]
    table = csv.read_csv(
        pa.py_buffer(content),
        csv.ReadOptions(column_names=names, block_size=len(content) + 1),  # a row fits into a block
        csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    yield from table.to_batches()
