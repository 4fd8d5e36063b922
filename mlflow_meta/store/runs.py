"""What was read of many runs, as columns: the form in which both readers hand runs over.

n    runs
m    items of one kind; an item is a param, tag, metric, data set, or a point of a curve
run  position of an item's run in `infos`, int32 in [0, n)

Both readers give the same tables to the byte: runs in the order of (start_time, run_id), items in
the order of (key, run), and points of a curve in that of (step, time, value).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

KEY = pa.dictionary(pa.int32(), pa.string())

INFOS = pa.schema(
    [
        ("run_id", pa.string()),
        ("experiment_id", pa.string()),
        ("status", pa.string()),
        ("start_ms", pa.int64()),
        ("end_ms", pa.int64()),  # null while it runs
    ]
)
TEXTS = pa.schema([("run", pa.int32()), ("key", KEY), ("value", pa.string())])
METRICS = pa.schema(
    [
        ("run", pa.int32()),
        ("key", KEY),
        ("value", pa.float64()),
        ("timestamp_ms", pa.int64()),
        ("step", pa.int64()),
    ]
)
INPUTS = pa.schema(
    [
        ("run", pa.int32()),
        ("key", KEY),  # the data set's name
        ("digest", KEY),
        ("schema", KEY),
        ("profile", KEY),
        ("context", KEY),  # what it was used for: train, eval, ...
    ]
)

OUTPUTS = pa.schema([("run", pa.int32()), ("key", KEY)])  # key: the id of a run's model
"""One of each run that logged models with MLflow 3, the last by id: mostly they are checkpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Runs and all that was logged in them.

    Attributes:
        infos: `(n,)` rows of `INFOS`.
        params: `(m,)` rows of `TEXTS`.
        tags: `(m,)` rows of `TEXTS`; MLflow's own only as far as `MLFLOW_TAGS` says.
        metrics: `(m,)` rows of `METRICS`: the last value of each.
        inputs: `(m,)` rows of `INPUTS`.
        curves: `(m,)` rows of `METRICS`: the points of those curves that were asked for.
        outputs: `(m,)` rows of `OUTPUTS`.
    """

    infos: pa.Table
    params: pa.Table
    tags: pa.Table
    metrics: pa.Table
    inputs: pa.Table
    outputs: pa.Table
    curves: pa.Table = field(default_factory=METRICS.empty_table)

    def __len__(self) -> int:
        return int(self.infos.num_rows)

    @classmethod
    def empty(cls) -> Runs:
        """No run."""
        return cls(**{name: schema.empty_table() for name, schema in _SCHEMAS.items()})

    @property
    def run_ids(self) -> pa.ChunkedArray:
        """`(n,)` ids of the runs."""
        return self.infos["run_id"]

    def open_ids(self) -> list[str]:
        """Ids of the runs that had not ended when they were read."""
        over = pc.is_in(self.infos["status"], pa.array(["FINISHED", "FAILED", "KILLED"]))
        return [str(run_id) for run_id in self.run_ids.filter(pc.invert(over)).to_pylist()]

    def without(self, run_ids: Sequence[str]) -> Runs:
        """These runs but for some."""
        gone = pc.is_in(self.run_ids, pa.array(run_ids, pa.string()))
        return self.rows(np.flatnonzero(~gone.to_numpy()))

    def ended_before(self, time_ms: int) -> Runs:
        """The runs that had begun and ended before a time."""
        start, end = (self.infos[name].fill_null(0) for name in ("start_ms", "end_ms"))
        return self.rows(np.flatnonzero((start.to_numpy() < time_ms) & (end.to_numpy() < time_ms)))

    def rows(self, positions: np.ndarray) -> Runs:
        """The runs at these positions, in this order; what else was logged follows its run."""
        moved = np.full(len(self), -1, dtype=np.int32)
        moved[positions] = np.arange(len(positions), dtype=np.int32)
        items = {name: _moved(getattr(self, name), moved) for name in _ITEMS}
        return Runs(infos=self.infos.take(pa.array(positions)), **items)

    def with_tag(self, key: str, runs: np.ndarray, values: Sequence[str]) -> Runs:
        """These runs, some of them, `(m,)` positions, with a tag more, `(m,)` values."""
        keys = pa.array([key] * len(values), pa.string()).dictionary_encode().cast(KEY)
        more = pa.table([runs.astype(np.int32), keys, pa.array(values, pa.string())], schema=TEXTS)
        return replace(self, tags=ordered(pa.concat_tables([self.tags, more])))

    def in_order(self) -> Runs:
        """Each run once, the one read last; runs and items in this module's order."""
        ids = self.run_ids.to_numpy()
        start = self.infos["start_ms"].fill_null(0).to_numpy()
        order = np.lexsort((np.arange(len(ids)), ids.astype(str), start))
        last = np.ones(len(order), dtype=bool)
        last[:-1] = ids[order][1:] != ids[order][:-1]
        runs = self if _is_range(order) and last.all() else self.rows(order[last])
        tables = {name: ordered(getattr(runs, name)) for name in _ITEMS}
        return replace(runs, infos=runs.infos.combine_chunks(), **tables)

    def to_bytes(self) -> bytes:
        """All tables, one Arrow stream after the other."""
        sink = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(compression="zstd", unify_dictionaries=True)
        for name in _SCHEMAS:
            with pa.ipc.new_stream(sink, _SCHEMAS[name], options=options) as stream:
                stream.write_table(getattr(self, name))
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Runs:
        """Inverse of `to_bytes`.

        Raises:
            ValueError: If the content is not what `to_bytes` writes, or of another version.
        """
        source = io.BytesIO(content)
        tables = {}
        for name, schema in _SCHEMAS.items():
            try:
                table = pa.ipc.open_stream(source).read_all()
            except (pa.ArrowInvalid, OSError) as error:
                raise ValueError(
                    f"The table {name!r} of the runs can't be read: {error}"
                ) from error
            if table.schema != schema:
                raise ValueError(
                    f"The table {name!r} of the runs has other columns: {table.schema}"
                )
            tables[name] = table
        return cls(**tables)


def joined(parts: Sequence[Runs]) -> Runs:
    """All runs of all parts, each once: where two parts have a run, it is the later part's."""
    offsets = np.cumsum([0, *(len(part) for part in parts)])
    tables = {"infos": pa.concat_tables([INFOS.empty_table(), *(part.infos for part in parts)])}
    for name in _ITEMS:
        shifted = [
            _with_runs(getattr(part, name), getattr(part, name)["run"].to_numpy() + int(offset))
            for part, offset in zip(parts, offsets, strict=False)
        ]
        tables[name] = pa.concat_tables([_SCHEMAS[name].empty_table(), *shifted])
    return Runs(**tables).in_order()


_SCHEMAS = {
    "infos": INFOS,
    "params": TEXTS,
    "tags": TEXTS,
    "metrics": METRICS,
    "inputs": INPUTS,
    "curves": METRICS,
    "outputs": OUTPUTS,
}
_ITEMS = tuple(table.name for table in fields(Runs) if table.name != "infos")


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array; `combine_chunks` would copy one that is whole already."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def by_key(table: pa.Table) -> Iterator[tuple[str, np.ndarray, pa.Array]]:
    """Each key of an ordered table with the runs, `(m,)`, and the values, `(m,)`, that it has."""
    if not table.num_rows:
        return
    key = one_array(table["key"])
    runs, values = table["run"].to_numpy(), one_array(table["value"])
    codes = key.indices.to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    for start, end in pairwise(starts):
        yield key.dictionary[int(codes[start])].as_py(), runs[start:end], values[start:end]


def _with_runs(table: pa.Table, runs: np.ndarray) -> pa.Table:
    return table.set_column(0, INPUTS.field("run"), pa.array(runs.astype(np.int32, copy=False)))


def _moved(table: pa.Table, moved: np.ndarray) -> pa.Table:
    """The items whose run is still there, under its new position; `moved` is `(n,)`, -1: gone."""
    runs = moved[table["run"].to_numpy()]
    kept = runs >= 0
    if kept.all():
        return _with_runs(table, runs)
    return _with_runs(table.filter(pa.array(kept)), runs[kept])


def ordered(table: pa.Table) -> pa.Table:
    """By (key, run); points of a curve also by (step, time, value). Unused keys are dropped."""
    table = table.combine_chunks().unify_dictionaries()
    if not table.num_rows:
        return table.schema.empty_table()
    coded = [name for name in table.column_names if table.schema.field(name).type == KEY]
    ranks = {}
    for name in coded:
        table, ranks[name] = _recoded(table, name)
    runs = table["run"].to_numpy()
    n_runs, n_keys = int(runs.max()) + 1, int(ranks["key"].max()) + 1
    small = np.int32 if n_runs * n_keys < 2**31 else np.int64
    position = np.multiply(ranks["key"], n_runs, dtype=small) + runs
    if "digest" in table.column_names:
        order = np.lexsort((ranks["context"], ranks["digest"], position))
    else:
        order = _argsort(position)
        if "step" in table.column_names and (np.diff(position[order]) == 0).any():
            step, time, value = (table[c].to_numpy() for c in ("step", "timestamp_ms", "value"))
            order = np.lexsort((value, time, step, position))
    return table if _is_range(order) else table.take(pa.array(order))


def _recoded(table: pa.Table, name: str) -> tuple[pa.Table, np.ndarray]:
    """A column whose dictionary has the texts in use and no other, sorted; and its codes."""
    column = one_array(table[name])
    codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    texts = column.dictionary.to_numpy(zero_copy_only=False)
    used = np.unique(codes[codes >= 0])
    sorted_texts, inverse = np.unique(texts[used].astype(object), return_inverse=True)
    recode = np.full(len(texts) + 1, -1, dtype=np.int32)
    recode[used] = inverse
    fresh = recode[codes]
    made = pa.DictionaryArray.from_arrays(
        pa.array(fresh, mask=fresh < 0), pa.array(sorted_texts, pa.string())
    )
    return table.set_column(table.column_names.index(name), name, made), fresh


def _argsort(values: np.ndarray) -> np.ndarray:
    """A stable argsort of integers >= 0, `(m,)`: 16 bits at a time, which numpy sorts by radix."""
    order = np.argsort(values.astype(np.uint16), kind="stable")
    for shift in range(16, int(values.max(initial=0)).bit_length(), 16):
        digits = (values >> shift).astype(np.uint16)[order]
        order = order[np.argsort(digits, kind="stable")]
    return np.asarray(order)


def _is_range(order: np.ndarray) -> bool:
    return bool((np.diff(order) == 1).all()) and (not len(order) or order[0] == 0)
