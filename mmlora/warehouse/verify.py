"""Verifying what is published: the rows that readers get are counted and hashed, as the audit saw them.

So are the staged files of loads that wait for their publication.

mmlora never changes a row that is published, so one that is gone, changed or new was touched by somebody
else, or the database came back from an older state.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import sqlalchemy as sa

from mmlora.content_hash import ContentHash
from mmlora.errors import ContractError, DataError
from mmlora.schema import POSITION, USER_ID, Id, IdTypes, scores_schema
from mmlora.warehouse import loads
from mmlora.warehouse.database import Database
from mmlora.warehouse.loads import Load
from mmlora.warehouse.publish import Publication, publications
from mmlora.warehouse.shadows import ShadowLoad
from mmlora.warehouse.tables import Tables
from mmlora.warehouse.writers import staged_batches


@dataclass(frozen=True)
class Verified:
    """What was seen of one load.

    Attributes:
        load_id: the load that readers follow, or should; or one that is staged.
        model_version: the model that scored it.
        rows: how many of its rows were read.
        fault: what is wrong; empty when nothing is.
        mend: the command that mends it.
    """

    domain_id: Id
    score_date: date
    load_id: str
    model_version: str
    rows: int
    fault: str = ""
    mend: str = ""


def verify(
    database: Database,
    tables: Tables,
    ids: IdTypes,
    *,
    domain: Id | None = None,
    start: date | None = None,
    end: date | None = None,
) -> Iterator[Verified]:
    """Verify each publication in turn, a batch of rows in memory at a time; then name those that are gone."""
    with database.reading() as connection:
        followed = publications(connection, tables, domain=domain, start=start, end=end)
        lost = _without_pointer(connection, tables)
    for publication in followed:
        verified = _verify(database, tables, ids, publication)
        if not (verified.fault and _freed(database, tables, publication)):  # by a gc that runs meanwhile
            yield verified
    for load in lost:
        inside = (start or load.score_date) <= load.score_date <= (end or load.score_date)
        if inside and domain in (None, load.domain_id):
            fault = "the load is published, but `publications` doesn't point to it"
            yield _verified(load, load, 0, fault)


def verify_staged(
    database: Database, tables: Tables, ids: IdTypes, load: Load, files: Iterable[Path]
) -> Verified | None:
    """Verify the staged files of a load that isn't published yet; None when it no longer is staged."""
    rows, fault = 0, ""
    try:
        for batch in staged_batches(files, ids, load):
            rows += batch.num_rows
    except (DataError, ContractError):
        fault = "its staged files are not those that were audited: one is gone, was truncated or changed"
    with database.reading() as connection:  # it may be published, and its files removed, meanwhile
        current = loads.find(connection, tables, load.load_key)
    return _verified(load, load, rows, fault) if current.state == "staged" else None


def verify_shadow(ids: IdTypes, load: ShadowLoad, files: Iterable[Path]) -> Verified:
    """Verify the staged files of a shadow load."""
    rows, fault, mend = 0, "", ""
    try:
        for batch in staged_batches(files, ids, load):
            rows += batch.num_rows
    except (DataError, ContractError):
        fault = "its files are not those that were audited: one is gone, was truncated or changed"
        mend = (
            f"mmlora score --date {load.score_date} --domain {shlex.quote(str(load.domain_id))} "
            f"--shadow {load.model_version}"
        )
    return Verified(load.domain_id, load.score_date, load.load_id, load.model_version, rows, fault, mend)


def _without_pointer(connection: sa.Connection, tables: Tables) -> list[Load]:
    load, pointer = tables.score_loads, tables.publications
    query = (
        sa.select(load)
        .outerjoin(pointer, pointer.c.load_key == load.c.load_key)
        .where(load.c.state == "published", pointer.c.load_key.is_(None))
        .order_by(load.c.load_key)
    )
    return [Load(**row._mapping) for row in connection.execute(query)]


def _freed(database: Database, tables: Tables, publication: Publication) -> bool:
    with database.reading() as connection:
        return loads.find(connection, tables, publication.load_key).rows_freed_at is not None


def _verify(database: Database, tables: Tables, ids: IdTypes, publication: Publication) -> Verified:
    with database.reading() as connection:
        load = loads.find(connection, tables, publication.load_key)
    rows, fault = 0, ""
    if (load.domain_id, load.score_date) != (publication.domain_id, publication.score_date):
        fault = f"readers follow a load of domain {load.domain_id!r}, {load.score_date}"
    else:
        rows, fault = _compare(database, tables, ids, load)
    return _verified(publication, load, rows, fault)


def _verified(place: Publication | Load, load: Load, rows: int, fault: str) -> Verified:
    mend = _score(place, load) if fault else ""
    return Verified(place.domain_id, place.score_date, load.load_id, load.model_version, rows, fault, mend)


def _compare(database: Database, tables: Tables, ids: IdTypes, load: Load) -> tuple[int, str]:
    """Return how many rows of a load were read, and what is wrong with them."""
    schema = scores_schema(ids)
    content, rows, column = ContentHash(schema), 0, tables.scores.c
    query = (
        sa.select(*(column[name] for name in schema.names))
        .where(column.load_key == load.load_key, column.score_date == load.score_date)
        .order_by(column[USER_ID], column[POSITION])  # as they were staged and hashed
    )
    try:
        for batch in database.stream(query, schema):
            content.update(pa.Table.from_batches([batch]))
            rows += batch.num_rows
    except (pa.ArrowException, TypeError, ValueError) as error:  # SQLite stores any type in any column
        return rows, f"rows were changed: a value doesn't have its column's type ({error})"
    missing = (load.rows or 0) - rows
    if missing > 0:
        return rows, f"{missing:,} of {load.rows:,} rows were deleted"
    if missing < 0:
        return rows, f"{-missing:,} rows were added to {load.rows:,}"
    return rows, "" if content.hexdigest() == load.content_hash else "rows were changed"


def _score(place: Publication | Load, load: Load) -> str:
    """Return the command that scores the domain and date again, by the model that it had."""
    return (
        f"mmlora score --date {place.score_date} --domain {shlex.quote(str(place.domain_id))} "
        f"--model-version {load.model_version}"
    )
