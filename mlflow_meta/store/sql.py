"""Reading runs straight from the tracking server's database; `databases` knows how to ask it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from mlflow_meta.errors import Unreadable
from mlflow_meta.store import curves, tables
from mlflow_meta.store.databases import Query, Select, asking
from mlflow_meta.store.runs import (
    INFOS,
    INPUTS,
    KEY,
    METRICS,
    OUTPUTS,
    TEXTS,
    Runs,
    one_array,
    ordered,
)
from mlflow_meta.store.texts import (
    DATABRICKS_PREFIX,
    MLFLOW_PREFIX,
    MLFLOW_TAGS,
    redacted,
    relevant,
    shortened,
)

Keep = Callable[[pa.Table], pa.Table]
CONTEXT_TAG = "mlflow.data.context"


@dataclass(frozen=True, slots=True)
class _Items:
    """What is asked of one table of items.

    Attributes:
        schema: The columns that are made of it.
        select: The question; the first column is the run's id.
        run: The run's id in it.
        keep: What is kept of a batch of answers.
        columns: Names of the answers' columns; None if they are the schema's.
        by_run: Whether `keep` must see all that a run has; then the answers come run by run.
    """

    schema: pa.Schema
    select: Select
    run: sa.ColumnElement[str]
    keep: Keep
    columns: Sequence[str] | None = None
    by_run: bool = False


_KNOWN_OF = ("key", "digest", "schema", "profile")  # what `INPUTS` says of a data set
_ANSWERED = (*METRICS.names, "is_nan")


def read_sql(
    uri: str,
    experiments: dict[str, str],
    progress: Callable[[int], None] = lambda _: None,
    *,
    patterns: Sequence[str] = (),
) -> Runs:
    """The active runs of some experiments, without their secrets.

    Args:
        uri: The database, as SQLAlchemy spells it.
        experiments: Id -> name, as the tracking server has them.
        progress: Called with how many runs there are; what it raises ends the reading.
        patterns: Of the metrics whose curves are read too, see `curves.wanted`.

    Raises:
        Unreadable: If it can't be read, is of a schema that is not known here, or is not the
            tracking server's. Nothing was changed; read over REST instead.
    """
    with asking(uri) as queries:
        _check(queries[0], experiments)
        return _read(queries, list(experiments), progress, patterns)


def _check(query: Query, experiments: dict[str, str]) -> None:
    found = {
        text for row in query(sa.select(tables.SCHEMA.c.version_num)) for text in _texts(row, 0)
    }
    if not found <= tables.KNOWN_SCHEMAS:
        raise Unreadable(f"its schema {', '.join(sorted(found))} is none of MLflow 2.9 to 3.17")
    wanted = sa.select(_text(tables.EXPERIMENTS.c.experiment_id), tables.EXPERIMENTS.c.name)
    there = {
        experiment: name
        for row in query(wanted)
        for experiment, name in zip(_texts(row, 0), _texts(row, 1), strict=True)
    }
    for experiment, name in experiments.items():
        if there.get(experiment) != name:
            raise Unreadable(
                f"it is not the tracking server's: experiment {experiment} is {name!r} on the "
                f"server, and {there.get(experiment)!r} in the database"
            )


def _read(
    queries: Sequence[Query],
    experiments: list[str],
    progress: Callable[[int], None],
    patterns: Sequence[str],
) -> Runs:
    query, r = queries[0], tables.RUNS.c
    wanted = sa.and_(
        r.lifecycle_stage == "active", r.experiment_id.in_([int(e) for e in experiments])
    )
    columns = (r.run_uuid, _text(r.experiment_id), r.status, r.start_time, r.end_time)
    batches = query(sa.select(*columns).where(wanted))
    parts = [pa.table(batch.columns, names=INFOS.names).cast(INFOS) for batch in batches]
    found = replace(Runs.empty(), infos=pa.concat_tables([INFOS.empty_table(), *parts]))
    infos = found.in_order().infos
    progress(len(infos))
    total = sum(
        int(count)
        for row in query(sa.select(sa.func.count().label("n")).select_from(tables.RUNS))
        for count in row.column(0).to_pylist()
    )
    # All of a table is read faster than a part of it that is looked up run by run.
    part = wanted if 2 * len(infos) < total else None
    questions = _QUESTIONS | {"inputs": _inputs_of(_datasets(query, part))}
    runs = Runs(infos=infos, **_items(queries, questions, infos, part, progress))
    if not patterns:
        return runs
    asked = {"curves": _curves_of(runs, patterns)}
    points = _items(queries, asked, infos, part, progress)["curves"]
    return replace(runs, curves=ordered(points.filter(pa.array(~curves.predicted(runs, points)))))


def _items(
    queries: Sequence[Query],
    questions: Mapping[str, _Items],
    infos: pa.Table,
    part: sa.ColumnElement[bool] | None,
    progress: Callable[[int], None],
) -> dict[str, pa.Table]:
    """The answers to some questions, in order, of the runs in `infos`; asked of a part of them."""
    ids = one_array(infos["run_id"])
    free = SimpleQueue[Query]()
    for query in queries:
        free.put(query)

    def answer(items: _Items) -> pa.Table:
        select = items.select
        if part is not None:
            select = select.join(tables.RUNS, tables.RUNS.c.run_uuid == items.run).where(part)
        query = free.get()
        try:
            batches = curves.of_whole_runs(query(select)) if items.by_run else query(select)
            found = [_of_runs(batch, ids, items) for batch in batches]
        finally:
            free.put(query)
        table = ordered(pa.concat_tables([items.schema.empty_table(), *found]))
        return redacted(table) if items.schema == TEXTS else table

    answers = {}
    with ThreadPoolExecutor(len(queries)) as pool:
        for name, table in zip(questions, pool.map(answer, questions.values()), strict=True):
            answers[name] = table
            progress(len(infos))
    return answers


def _curves_of(runs: Runs, patterns: Sequence[str]) -> _Items:
    """The histories of the metrics that match, run by run."""
    c = tables.HISTORY.c
    keys = pc.unique(curves.wanted(runs, patterns)["key"]).cast(pa.string()).to_pylist()
    select = _points_of(tables.HISTORY).where(c.key.in_(keys)).order_by(c.run_uuid)
    return _Items(METRICS, select, c.run_uuid, _as_points, _ANSWERED, by_run=True)


def _datasets(query: Query, part: sa.ColumnElement[bool] | None) -> pa.Table:
    """The data sets of all runs or of a part of them: many runs share one long description."""
    d = tables.DATASETS.c
    described = (sa.func.coalesce(text, "") for text in (d.dataset_schema, d.dataset_profile))
    select = sa.select(d.dataset_uuid, d.name, d.digest, *described)
    if part is not None:
        i = tables.INPUTS.c
        used = (
            sa.select(i.source_id)
            .join(tables.RUNS, tables.RUNS.c.run_uuid == i.destination_id)
            .where(part)
        )
        select = select.where(d.dataset_uuid.in_(used))
    batches = query(select)
    schema = pa.schema([(name, pa.string()) for name in ("dataset", *_KNOWN_OF)])
    parts = [pa.table(batch.columns, names=schema.names).cast(schema) for batch in batches]
    return pa.concat_tables([schema.empty_table(), *parts]).combine_chunks()


def _of_runs(batch: pa.RecordBatch, ids: pa.Array, items: _Items) -> pa.Table:
    """The items of the runs in `ids`, in the columns of their schema."""
    schema = items.schema
    run = pc.index_in(batch.column(0), value_set=ids)
    named = pa.table([run, *batch.columns[1:]], names=items.columns or schema.names)
    if run.null_count:
        named = named.filter(pc.is_valid(run))
    for position, name in enumerate(named.column_names):
        if name in schema.names and schema.field(name).type == KEY:
            coded = pc.dictionary_encode(named.column(position).cast(pa.string()))
            named = named.set_column(position, name, coded)
    return items.keep(named).select(schema.names).cast(schema)


def _as_read(table: pa.Table) -> pa.Table:
    return table


def _as_points(table: pa.Table) -> pa.Table:
    return curves.kept(_without_nan(table).select(METRICS.names))


def _without_nan(table: pa.Table) -> pa.Table:
    """MLflow keeps a NaN as 0 with a mark."""
    value = pc.if_else(table["is_nan"].cast(pa.bool_()), np.nan, table["value"].cast(pa.float64()))
    return table.set_column(table.column_names.index("value"), "value", value)


def _texts(batch: pa.RecordBatch, column: int) -> list[str]:
    return [str(value) for value in batch.column(column).to_pylist()]


def _text(column: sa.ColumnClause[object]) -> sa.ColumnElement[str]:
    return sa.cast(column, sa.String(32))


def _exact(text: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
    """A text by its bytes: in MySQL texts are equal that differ by case, accents or last spaces."""
    return sa.cast(text, sa.String().with_variant(sa.LargeBinary(), "mysql", "mariadb"))


def _texts_of(table: sa.TableClause) -> Select:
    return sa.select(table.c.run_uuid, table.c.key, sa.func.coalesce(table.c.value, ""))


def _points_of(table: sa.TableClause) -> Select:
    c = table.c
    return sa.select(c.run_uuid, c.key, c.value, c.timestamp, c.step, c.is_nan)


def _tags_of() -> Select:
    key = tables.TAGS.c.key
    ours = sa.or_(
        _exact(sa.func.substr(key, 1, len(MLFLOW_PREFIX))) != _exact(sa.literal(MLFLOW_PREFIX)),
        key.in_(MLFLOW_TAGS),
        sa.func.substr(key, 1, len(DATABRICKS_PREFIX)) == DATABRICKS_PREFIX,
    )
    return _texts_of(tables.TAGS).where(ours)


def _inputs_of(datasets: pa.Table) -> _Items:
    i, tag = tables.INPUTS.c, tables.INPUT_TAGS.c
    is_context = _exact(tag.name) == _exact(sa.literal(CONTEXT_TAG))
    select = (
        sa.select(i.destination_id, i.source_id, sa.func.coalesce(tag.value, ""))
        .outerjoin(tables.INPUT_TAGS, sa.and_(tag.input_uuid == i.input_uuid, is_context))
        .where(i.source_type == "DATASET", i.destination_type == "RUN")
    )
    uuids = one_array(datasets["dataset"])

    def described(table: pa.Table) -> pa.Table:
        place = pc.index_in(table["dataset"].cast(pa.string()), value_set=uuids)
        table, place = table.filter(pc.is_valid(place)), place.drop_null()
        for name in _KNOWN_OF:
            table = table.append_column(name, datasets[name].take(place))
        return table

    return _Items(INPUTS, select, i.destination_id, described, ("run", "dataset", "context"))


def _outputs_of() -> Select:
    i = tables.INPUTS.c
    return (
        sa.select(i.source_id, sa.func.max(i.destination_id).label("model_id"))
        .where(i.source_type == "RUN_OUTPUT", i.destination_type == "MODEL_OUTPUT")
        .group_by(i.source_id)
    )


_QUESTIONS = {
    "params": _Items(TEXTS, _texts_of(tables.PARAMS), tables.PARAMS.c.run_uuid, shortened),
    "tags": _Items(TEXTS, _tags_of(), tables.TAGS.c.run_uuid, relevant),
    "metrics": _Items(
        METRICS, _points_of(tables.LATEST), tables.LATEST.c.run_uuid, _without_nan, _ANSWERED
    ),
    "outputs": _Items(OUTPUTS, _outputs_of(), tables.INPUTS.c.source_id, _as_read),
}
"""What is asked of all runs, beside their inputs: one table of `Runs` each."""
