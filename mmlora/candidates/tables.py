"""The user's own tables, by path or by SQL, with ``{domain}`` and ``{date}`` filled in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.types as pt

from mmlora.candidates.policy import TABLES, Policy
from mmlora.duck import MEMORY_LIMIT, in_memory
from mmlora.errors import DataError, Fault, UsageError
from mmlora.schema import Entity, Id, IdTypes

_SHOWN = 3
_SQL = re.compile(r"\s*(select|with|from)\s", re.IGNORECASE)
_MAGIC = re.compile(r"[*?[]")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Table:
    """A table that a setting names, for one domain and date.

    Attributes:
        name: the setting, for messages.
        template: a path (a Parquet file, a folder of them, or a pattern), or SQL.
        domain: fills in ``{domain}``.
        on: fills in ``{date}``.
    """

    name: str
    template: str
    domain: Id
    on: date

    @property
    def is_sql(self) -> bool:
        """Whether it is SQL, which DuckDB runs, rather than a path."""
        return is_sql(self.template)

    @property
    def text(self) -> str:
        """The path or SQL with the placeholders filled in; a quote in a domain is doubled in SQL."""
        domain = str(self.domain)
        if self.is_sql:
            domain = domain.replace("'", "''")
        elif ".." in Path(domain).parts:
            raise UsageError(f"domain {domain!r} can't be part of the path {self.template!r}")
        elif _MAGIC.search(self.template):
            domain = _MAGIC.sub(r"[\g<0>]", domain)
        return self.template.replace("{domain}", domain).replace("{date}", self.on.isoformat())

    def __str__(self) -> str:
        return f"the SQL of the table of {self.name}" if self.is_sql else self.text

    def files(self) -> list[Path]:
        """Return its files, sorted; empty for SQL, or if there are none."""
        if self.is_sql:
            return []
        path = Path(self.text)
        if path.is_dir():
            return sorted(path.rglob("*.parquet"))
        return [path] if path.exists() else sorted(_matching(self.text))

    def read(self, columns: Sequence[str], optional: Sequence[str] = ()) -> pa.Table:
        """Return the table's columns of these names; others are ignored.

        Raises:
            DataError: the file does not exist or isn't Parquet, the SQL fails, or a column is missing.
        """
        return self._from_sql(columns, optional) if self.is_sql else self._from_files(columns, optional)

    def _from_files(self, columns: Sequence[str], optional: Sequence[str]) -> pa.Table:
        files = self.files()
        if not files:
            raise DataError(str(self), "cannot be read: there is no such Parquet file")
        try:
            source = self.text if Path(self.text).is_dir() else [str(file) for file in files]
            dataset = ds.dataset(source, format="parquet", partitioning="hive")
            return dataset.to_table(columns=self._wanted(dataset.schema.names, columns, optional))
        except (OSError, pa.ArrowInvalid) as error:
            hint = "to read another format use SQL, e.g. SELECT * FROM read_csv('FILE')"
            raise DataError(str(self), f"cannot be read as Parquet: {error}; {hint}") from None

    def _from_sql(self, columns: Sequence[str], optional: Sequence[str]) -> pa.Table:
        import duckdb

        # A user's SQL may attach files and set options, so its instance is shared with nothing.
        with in_memory(memory_limit=MEMORY_LIMIT) as connection:
            try:
                relation = connection.sql(self.text)
                if relation is None:
                    raise DataError(str(self), "returns no table: write a SELECT")
                names = self._wanted(relation.columns, columns, optional)
                quoted = ", ".join(f'"{name}"' for name in names)
                return relation.project(quoted).to_arrow_table() if names else pa.table({})
            except duckdb.Error as error:
                raise DataError(str(self), f"failed: {str(error).splitlines()[0]}") from None

    def _wanted(self, names: Sequence[str], columns: Sequence[str], optional: Sequence[str]) -> list[str]:
        missing = [
            Fault(f"missing; the table has {', '.join(names)}", name) for name in columns if name not in names
        ]
        if missing:
            raise DataError(str(self), missing)
        return [name for name in (*columns, *optional) if name in names]


def _matching(pattern: str) -> Iterator[Path]:
    """Yield the files that match a pattern."""
    path = Path(pattern)
    for match in Path(path.anchor).glob(str(path.relative_to(path.anchor))):
        yield from match.rglob("*.parquet") if match.is_dir() else (match,)


def is_sql(text: str) -> bool:
    """Return whether a setting is SQL rather than a path."""
    return _SQL.match(text) is not None


def id_column(
    table: pa.Table, entity: Entity, ids: IdTypes, *, nulls: bool = False
) -> pa.ChunkedArray | Fault:
    """Return an id column in its type, or what is wrong with it; integers of any width do for int64."""
    name = f"{entity}_id"
    column, wanted = table.column(name), ids.arrow(entity)
    if pt.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    whole = pt.is_integer(column.type) and pt.is_int64(wanted)
    text = any(of(column.type) for of in (pt.is_string, pt.is_large_string, pt.is_string_view))
    if not (whole or (text and pt.is_string(wanted)) or (nulls and pt.is_null(column.type))):
        return Fault(f"is {column.type}, but the imported {entity} ids are {wanted}", name)
    if column.null_count and not nulls:
        rows = np.flatnonzero(column.is_null().to_numpy())[:_SHOWN]
        return Fault("null", name, column.null_count, tuple(f"row {row}" for row in rows))
    return column.cast(wanted)


def id_columns(
    table: pa.Table, entities: Sequence[Entity], ids: IdTypes, source: str, *, any_domain: bool = False
) -> pa.Table:
    """Return the id columns that a table has, cast to their types.

    Args:
        table: the user's own table.
        entities: the entities whose ids to return.
        ids: the id types.
        source: the table's name, for messages.
        any_domain: whether a domain may be null, meaning all domains.
    """
    columns = {
        f"{entity}_id": id_column(table, entity, ids, nulls=any_domain and entity == "domain")
        for entity in entities
        if f"{entity}_id" in table.column_names
    }
    faults = [column for column in columns.values() if isinstance(column, Fault)]
    if faults:
        raise DataError(source, faults)
    return pa.table(columns)


def recorded(policy: Policy, domain: Id, on: date) -> dict[str, object]:
    """Return what determines a load's candidates, as it is stored with the load and compared later.

    A table by path is represented by a hash of its files, SQL by a hash of its text, which may contain
    secrets.
    """
    parts = policy.deciding()
    for name in TABLES:
        if name not in parts or (name == "users" and policy.users_table is None):
            continue
        table = Table(name, getattr(policy, name), domain, on)
        if table.is_sql:
            parts[name] = f"SQL {hashlib.sha256(table.text.encode()).hexdigest()[:12]}"
        else:
            states = tuple((file, *_state(file)) for file in table.files())
            parts[f"{name}_content"] = _digest(states)
    return parts


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=1024)
def _digest(states: tuple[tuple[Path, int, int], ...]) -> str:
    """Return a hash of files that are in these states; a plan asks for the same ones for every night."""
    digest = hashlib.sha256()
    for path, *_ in states:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()[:12]
