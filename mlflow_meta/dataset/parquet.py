"""Frames of runs in one parquet file, of which equal content gives equal bytes.

The runs are the file's table. Beside it, as key-value metadata: notes as JSON, and one more frame
of texts as a parquet file of its own, in base 64 because metadata must be text.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlflow_meta.errors import NothingToLearn

_NOTES = b"mlflow_meta"
_BESIDE = b"mlflow_meta.quarantine"
_TIME = "start_time"


def write(
    frames: Sequence[pd.DataFrame], *, beside: pd.DataFrame, notes: Mapping[str, Any]
) -> bytes:
    """One file.

    Args:
        frames: With the same columns; their rows follow each other in the file's table. The column
            `start_time` holds times, kept to the millisecond.
        beside: A frame of texts.
        notes: Plain data.
    """
    tables = [_table(frame) for frame in frames]
    table = pa.concat_tables(tables, promote_options="permissive")
    kept = _bytes(pa.Table.from_pandas(beside, preserve_index=False))
    metadata = {_NOTES: json.dumps(notes, sort_keys=True).encode(), _BESIDE: base64.b64encode(kept)}
    return _bytes(table, metadata)


def read(
    content: bytes, columns: Sequence[str] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Inverse of `write`: the rows of all frames, the frame beside them, and the notes.

    Args:
        content: The file.
        columns: Which of the frames' columns; None for all.

    Raises:
        NothingToLearn: If it is not a file that `write` of this version has written.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(content))
    except pa.ArrowInvalid as error:
        raise NothingToLearn(f"A harvest must be a parquet file, but: {error}.") from error
    metadata = file.metadata.metadata or {}
    if _NOTES not in metadata or _BESIDE not in metadata:
        raise NothingToLearn(
            "This parquet file holds no meta-dataset of this version of mlflow-meta. Run "
            "`mlflow-meta harvest` again."
        )
    kept = pq.read_table(io.BytesIO(base64.b64decode(metadata[_BESIDE])))
    # Each column is let go of as soon as pandas has it: the file need not fit into memory twice.
    runs = file.read(columns).to_pandas(split_blocks=True, self_destruct=True)
    return runs, kept.to_pandas(), json.loads(metadata[_NOTES])


def _table(frame: pd.DataFrame) -> pa.Table:
    # Arrow asks pandas 3 for the times in a way that it deprecates: hand them over ourselves.
    times = frame[_TIME].dt.tz_convert(None).to_numpy("datetime64[ms]")
    table = pa.Table.from_pandas(frame.drop(columns=_TIME), preserve_index=False)
    place = list(frame.columns).index(_TIME)
    return table.add_column(place, _TIME, pa.array(times, pa.timestamp("ms", tz="UTC")))


def _bytes(table: pa.Table, metadata: Mapping[bytes, bytes] | None = None) -> bytes:
    """`table` as a file, in which texts are of one type whatever pandas has kept them in."""
    about = json.loads(table.schema.metadata[b"pandas"])
    notes = {column["field_name"]: column for column in about["columns"]}
    fields = []
    for field in table.schema:
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            field = field.with_type(pa.large_string())
            kept_in = str(notes[field.name]["numpy_type"]).partition("[")[0]  # string[python]
            read_as = "str" if kept_in == "object" else kept_in
            notes[field.name].update(pandas_type="unicode", numpy_type=read_as)
        fields.append(field)
    schema = pa.schema(fields, metadata={b"pandas": json.dumps(about).encode()})
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd") as file:
        file.write_table(table.cast(schema))
        # Not into the schema, of which Arrow keeps a second copy.
        file.add_key_value_metadata(dict(metadata or {}))
    return sink.getvalue()
