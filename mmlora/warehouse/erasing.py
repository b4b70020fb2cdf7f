"""Erasing users from the warehouse: every load loses their rows, and its hash becomes that of the other rows.

The ledger of erasures keeps salted hashes of the users' ids. An entry without ``finished_at`` is under way,
or was killed: erasing the same user again completes it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from mmlora.content_hash import ContentHash
from mmlora.redaction import redact
from mmlora.schema import POSITION, USER_ID, Id, IdTypes, scores_schema
from mmlora.warehouse.database import Database, clock, hold
from mmlora.warehouse.loads import Load, listing
from mmlora.warehouse.tables import Tables

_USERS_AT_ONCE = 500


class Erasure(NamedTuple):
    """A user's entry in the ledger.

    Attributes:
        id: the entry's id.
        models: the versions trained on rows of the user.
        resumed: whether a killed call began it.
    """

    id: int
    models: list[str]
    resumed: bool


def begin_erasures(
    database: Database, tables: Tables, models: Mapping[Id, Sequence[str]], *, who: str, why: str
) -> list[Erasure]:
    """Record that users are being erased, unless a killed erasure has recorded it already.

    Args:
        database: the warehouse.
        tables: its tables.
        models: for each user, the versions trained on rows of theirs.
        who: the user's name on the machine.
        why: the reason given.

    Returns:
        An entry per user. One of a killed erasure keeps the versions found then, when the rows were there.
    """
    begun: list[Erasure] = []
    entry = tables.erasures
    with database.writing() as connection:
        hold(connection, "erasures")
        query = sa.select(entry).where(entry.c.finished_at.is_(None))
        unfinished = [row._mapping for row in connection.execute(query)]
        for user, versions in models.items():
            known = next((row for row in unfinished if _hash(user, row["salt"]) == row["user_hash"]), None)
            if known is not None:
                begun.append(Erasure(known["id"], sorted({*known["models"], *versions}), resumed=True))
                continue
            salt = secrets.token_hex(16)
            facts: dict[str, Any] = {"salt": salt, "user_hash": _hash(user, salt), "models": list(versions)}
            facts |= {"who": who, "why": redact(why), "begun_at": clock(connection)}
            added = connection.execute(sa.insert(entry).values(**facts).returning(entry.c.id))
            begun.append(Erasure(added.scalar_one(), list(versions), resumed=False))
    return begun


def finish_erasures(database: Database, tables: Tables, entries: Collection[int]) -> None:
    """Record that erasures are complete."""
    column = tables.erasures.c
    with database.writing() as connection:
        for start in range(0, len(entries), _USERS_AT_ONCE):
            some = list(entries)[start : start + _USERS_AT_ONCE]
            connection.execute(
                sa.update(tables.erasures)
                .where(column.id.in_(some), column.finished_at.is_(None))
                .values(finished_at=clock(connection))
            )


def erase_scores(
    database: Database, tables: Tables, ids: IdTypes, users: pa.Array
) -> Iterator[tuple[Load, int]]:
    """Remove the users' rows from one load after the other; yields each load with the rows removed.

    A load loses its rows and gets its new row count and content hash in one transaction, so
    :func:`~mmlora.warehouse.verify.verify` never finds fault with it, and a killed call has erased whole
    loads.
    """
    with database.reading() as connection:
        loads = [load for load in listing(connection, tables) if load.rows_deleted_at is None]
    for load in loads:
        if _count(database, tables, load, users):
            # A publisher thought dead may still write; nobody else changes a load's rows.
            with database.alone(f"publish-{load.load_key}"):
                yield load, _erase(database, tables, ids, load, users)
        else:
            yield load, 0


def _erase(database: Database, tables: Tables, ids: IdTypes, load: Load, users: pa.Array) -> int:
    column, facts, removed = tables.scores.c, tables.score_loads, 0
    rows, content_hash = _without(database, tables, ids, load, users)
    with database.writing() as connection:
        database.backend.overwrite_deleted(connection)
        hold(connection, "load", load.domain_id, load.score_date)
        for some in _chunks(users):
            theirs = column.load_key == load.load_key, column.score_date == load.score_date
            removed += connection.execute(
                sa.delete(tables.scores).where(*theirs, column.user_id.in_(some))
            ).rowcount
        if load.content_hash is not None:
            changed = {"rows": rows, "content_hash": content_hash}
            connection.execute(sa.update(facts).where(facts.c.load_key == load.load_key).values(**changed))
    return removed


def _without(
    database: Database, tables: Tables, ids: IdTypes, load: Load, users: pa.Array
) -> tuple[int, str]:
    """Return how many rows of a load are not the users', and their hash."""
    schema, column, rows = scores_schema(ids), tables.scores.c, 0
    content = ContentHash(schema)
    query = (
        sa.select(*(column[name] for name in schema.names))
        .where(column.load_key == load.load_key, column.score_date == load.score_date)
        .order_by(column[USER_ID], column[POSITION])  # as they were staged and hashed
    )
    for batch in database.stream(query, schema):
        others = pa.Table.from_batches([batch]).filter(pc.invert(pc.is_in(batch[USER_ID], users)))
        content.update(others)
        rows += others.num_rows
    return rows, content.hexdigest()


def _count(database: Database, tables: Tables, load: Load, users: pa.Array) -> int:
    column, count = tables.scores.c, 0
    with database.reading() as connection:
        for some in _chunks(users):
            query = sa.select(sa.func.count()).where(
                column.load_key == load.load_key,
                column.score_date == load.score_date,
                column.user_id.in_(some),
            )
            count += connection.execute(query).scalar_one()
    return count


def _chunks(users: pa.Array) -> Iterator[list[Id]]:
    for start in range(0, len(users), _USERS_AT_ONCE):
        yield users.slice(start, _USERS_AT_ONCE).to_pylist()


def _hash(user: Id, salt: str) -> str:
    return hashlib.sha256(f"{salt}:{user}".encode()).hexdigest()
