"""Which items are available on the night: by a column of the item profile, and by a stock table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from mmlora.candidates.known import KnownData
from mmlora.candidates.policy import Policy
from mmlora.candidates.tables import Table, id_columns
from mmlora.errors import DataError, Fault, UsageError
from mmlora.schema import CREATED_TIMESTAMP, DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, TIMESTAMP, IdTypes

TRUE, FALSE = ("true", "t", "yes", "y", "1", "1.0"), ("false", "f", "no", "n", "0", "0.0")
FROM, UNTIL = "from", "until"


@dataclass(frozen=True)
class RemovalRule:
    """A rule that removes all items except those that a query returns.

    Attributes:
        removes: the reason for removing the others.
        stay: the query for the ids that stay.
        parameters: the query's parameters.
    """

    removes: str
    stay: str
    parameters: Mapping[str, object] = field(default_factory=dict)


def availability(policy: Policy, known: KnownData, ids: IdTypes) -> Iterator[RemovalRule]:
    """Yield a policy's rules about the availability of items.

    Raises:
        UsageError: the item profile has no such column.
        DataError: a value of a column or table is neither true nor false, or not a time.
    """
    if isinstance(policy.available, str):
        yield from _flag(policy.available, known)
    elif policy.available is not None:
        yield from _interval(policy.available, known)
    if policy.stock is not None:
        yield _stock(Table("stock", policy.stock, known.domain, known.on), known, ids)


def _make_profiles(names: list[str], known: KnownData) -> pa.Schema:
    """Create the table ``item_now`` of the items' versions on the night, with these columns."""
    files = known.profile_files("item")
    schema = pq.read_schema(files[0]) if files else pa.schema([])
    features = [name for name in schema.names if name not in (ITEM_ID, EVENT_TIMESTAMP, CREATED_TIMESTAMP)]
    if unknown := [name for name in names if name not in features]:
        have = f"it has {', '.join(features)}" if features else "import items with a profile first"
        raise UsageError(f"candidates.available: the item profile has no column {unknown[0]!r}; {have}")
    known.make(
        "item_now",
        f"SELECT {ITEM_ID}, {', '.join(map(_quote, names))} FROM read_parquet($files, union_by_name = true) "
        "WHERE event_timestamp <= $cutoff AND created_timestamp <= $known_as_of "
        f"QUALIFY row_number() OVER (PARTITION BY {ITEM_ID} "
        "ORDER BY event_timestamp DESC, created_timestamp DESC) = 1",
        files=files,
        cutoff=known.cutoff,
        known_as_of=known.known_as_of,
    )
    return schema


def _flag(name: str, known: KnownData) -> Iterator[RemovalRule]:
    _make_profiles([name], known)
    text = f"lower(CAST({_quote(name)} AS VARCHAR))"
    _refuse_others(
        name,
        f"{text} NOT IN $valid",
        known,
        "neither true nor false (yes and no, 1 and 0)",
        valid=[*TRUE, *FALSE],
    )
    yield RemovalRule(
        f"no value of {name}", f"SELECT {ITEM_ID} FROM item_now WHERE {_quote(name)} IS NOT NULL"
    )
    yield RemovalRule(
        f"{name} is false", f"SELECT {ITEM_ID} FROM item_now WHERE {text} IN $true", {"true": list(TRUE)}
    )


def _interval(names: tuple[str, str], known: KnownData) -> Iterator[RemovalRule]:
    schema = _make_profiles([name for name in names if name], known)
    for name in filter(None, names):
        kind = schema.field(name).type
        if not (pt.is_timestamp(kind) or pt.is_date(kind) or pt.is_string(kind)):
            raise UsageError(
                f"candidates.available: {name} is {kind}; an interval needs columns of dates or times"
            )
        _refuse_others(name, f"{_time(name)} IS NULL", known, "neither a date nor a time")
    yield RemovalRule("no profile", f"SELECT {ITEM_ID} FROM item_now")
    first, last = names
    if first:
        stay = f"SELECT {ITEM_ID} FROM item_now WHERE coalesce({_time(first)} <= $cutoff, true)"
        yield RemovalRule(f"before its {first}", stay, {"cutoff": known.cutoff})
    if last:
        stay = f"SELECT {ITEM_ID} FROM item_now WHERE coalesce({_time(last)} > $cutoff, true)"
        yield RemovalRule(f"its {last} has passed", stay, {"cutoff": known.cutoff})


def _refuse_others(name: str, wrong: str, known: KnownData, what: str, **parameters: object) -> None:
    """Raise an error if a column has invalid values; missing ones are allowed."""
    condition = f"FROM item_now WHERE {_quote(name)} IS NOT NULL AND {wrong}"
    if count := known.number(f"SELECT count(*) {condition}", **parameters):
        rows = known.column(f"SELECT DISTINCT {_quote(name)} {condition} ORDER BY 1 LIMIT 3", **parameters)
        raise DataError("item profiles", [Fault(what, name, count, tuple(map(repr, rows.to_pylist())))])


def _stock(table: Table, known: KnownData, ids: IdTypes) -> RemovalRule:
    """Create the table ``stock`` from a stock table, and return the rule that uses it."""
    came = table.read((ITEM_ID, FROM, UNTIL), (DOMAIN_ID,))
    columns = id_columns(came, ("item", "domain"), ids, str(table), any_domain=True)
    if DOMAIN_ID not in columns.column_names:
        columns = columns.append_column(DOMAIN_ID, pa.nulls(len(columns), ids.arrow("domain")))
    for name in (FROM, UNTIL):
        columns = columns.append_column(name, _times(came.column(name), name, str(table)))
    known.connection.register("stock_came", columns)
    known.make(
        "stock",
        f'SELECT {ITEM_ID}, "from" <= $cutoff AS begun, "until" <= $cutoff AS ended FROM stock_came '
        f"WHERE coalesce({DOMAIN_ID} = $domain, true)",
        cutoff=known.cutoff,
        domain=known.domain,
    )
    stay = f"SELECT {ITEM_ID} FROM stock WHERE coalesce(begun, true) AND NOT coalesce(ended, false)"
    return RemovalRule("not in stock", stay)


def _times(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    """Return times in UTC; null means an open end."""
    kind = column.type
    if not (pt.is_timestamp(kind) or pt.is_date(kind) or pt.is_string(kind) or pt.is_null(kind)):
        raise DataError(source, [Fault(f"is {kind}; write dates or times, and null for an open end", name)])
    try:
        return column.cast(pa.timestamp("us")).cast(TIMESTAMP) if pt.is_date(kind) else column.cast(TIMESTAMP)
    except pa.ArrowInvalid as error:
        raise DataError(source, [Fault(f"has a value that is not a time: {error}", name)]) from None


def _time(name: str) -> str:
    return f"TRY_CAST({_quote(name)} AS TIMESTAMPTZ)"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
