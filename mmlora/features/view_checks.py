"""Checks of a user's own feature view: its keys, its source's columns and times, its fields."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from mmlora.duck import in_memory
from mmlora.errors import MmloraError, UsageError
from mmlora.features.asof.request import fetch, same_kind
from mmlora.features.asof.source import attach, locate, quote
from mmlora.features.contract import check_projection, contract_field
from mmlora.features.transforms import to_input
from mmlora.schema import ENTITY_KEYS, TIMESTAMP, Entity, FeatureField, IdTypes

if TYPE_CHECKING:
    from feast.repo_config import RepoConfig

_SERVICES = ("profile", "input")
_TRANSFORMS = ("log", "log1p", "days_since", "words")
_PARTNERS = ("vocabulary", "match", "weights", "dot")
_SAMPLE = 1000
"""Number of rows whose values are converted as a test; all rows have the same types."""


def faults_of_view(view: Any, *, ids: IdTypes, fields: Collection[str], config: RepoConfig) -> Iterator[str]:
    """Yield a view's faults, each as a clause.

    Args:
        view: a Feast view.
        ids: the types of the imported ids.
        fields: the fields that a tag may name, as ``view__field``.
        config: the Feast repository's configuration.
    """
    from feast import FeatureView

    service = view.tags.get("mmlora")
    if service is not None and service not in _SERVICES:
        yield f"its tag mmlora is {service!r}; valid are {' and '.join(_SERVICES)}, or no such tag"
    if not isinstance(view, FeatureView):
        if service is not None:
            yield "an on-demand view can't be an input of the model: write its values to Parquet, or untag it"
        return
    keys = [ENTITY_KEYS[name] for name in ENTITY_KEYS if name in view.entities]
    if strange := [name for name in view.entities if name not in ENTITY_KEYS]:
        named = "no entity" if strange == ["__dummy"] else f"entity {', '.join(strange)}"
        yield f"it has {named}; valid are those of `entities`: {', '.join(ENTITY_KEYS)}"
    if service is not None:
        yield from _contract_faults(view, tuple(keys), fields)
    yield from _source_faults(view, keys, ids, config, needed=service is not None)


def _contract_faults(view: Any, keys: tuple[str, ...], fields: Collection[str]) -> Iterator[str]:
    if not view.features:
        yield "it has no fields: give it a schema"
    try:
        check_projection(view.projection, keys)
    except UsageError as error:
        yield _without_name(error, view)
    for field in view.features:
        tags = field.tags
        if (length := tags.get("max_length")) is not None and not (length.isdecimal() and int(length)):
            yield f"field {field.name}: its tag max_length is {length!r}, not a number above 0"
        if (transform := tags.get("transform")) is not None and transform not in _TRANSFORMS:
            valid = ", ".join(_TRANSFORMS)
            yield f"field {field.name}: its tag transform is {transform!r}; valid are {valid}"
        for tag in _PARTNERS:
            if tag in tags and tags[tag] not in fields:
                named = f"{tags[tag]!r}, which is not a field of a view: write VIEW__FIELD"
                yield f"field {field.name}: its tag {tag} names {named}"


def _source_faults(
    view: Any, keys: list[str], ids: IdTypes, config: RepoConfig, *, needed: bool
) -> Iterator[str]:
    """Yield the faults of a view's source; other sources than Parquet are faults if the model reads them."""
    from feast import FileSource

    if not isinstance(view.batch_source, FileSource) and not needed:
        return
    try:
        parquet = locate(config, view.batch_source, f"feature view {view.name}")
        scan = parquet.scan()
    except UsageError as error:
        yield _without_name(error, view)
        return
    with in_memory() as connection:
        attach(connection, [parquet])
        try:
            schema = fetch(connection, f"SELECT * FROM {scan} LIMIT 0").schema
        except duckdb.Error as error:
            yield f"{parquet.path} can't be read as Parquet ({error})"
            return
        columns = {field.name: field.type for field in schema}
        source = view.batch_source
        mapped = {new: old for old, new in source.field_mapping.items()}
        named = [*keys, source.timestamp_field, source.created_timestamp_column]
        named += [field.name for field in view.features]
        absent = [mapped.get(name, name) for name in named if name and mapped.get(name, name) not in columns]
        if absent:
            yield f"{parquet.path} has no column {', '.join(absent)}; it has {', '.join(columns)}"
        for key in keys:
            yield from _key_faults(mapped.get(key, key), key, columns, ids)
        yield from _time_faults(connection, scan, source, mapped, columns)
        if needed:
            yield from _field_faults(connection, scan, view, tuple(keys), mapped, columns)


def _key_faults(column: str, key: str, columns: dict[str, pa.DataType], ids: IdTypes) -> Iterator[str]:
    entity: Entity = next(name for name, of in ENTITY_KEYS.items() if of == key)
    if column in columns and not same_kind(columns[column], ids.arrow(entity)):
        yield (
            f"column {column} is {columns[column]}, but the imported {key} is {ids.arrow(entity)}: "
            "write ids of the imported type"
        )


def _time_faults(
    connection: duckdb.DuckDBPyConnection,
    scan: str,
    source: Any,
    mapped: dict[str, str],
    columns: dict[str, pa.DataType],
) -> Iterator[str]:
    """Yield missing or invalid time columns, and times without which a row can never be read."""
    if not source.timestamp_field:
        yield "its source has no timestamp_field: name the column with the time from which a value is valid"
    for name in (source.timestamp_field, source.created_timestamp_column):
        column = mapped.get(name, name)
        if column not in columns:
            continue
        kind = columns[column]
        if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_string(kind)):
            yield f"column {column} is {kind}, not a time"
            continue
        wrong = f"FROM {scan} WHERE try_cast({quote(column)} AS TIMESTAMPTZ) IS NULL"
        ((count,),) = connection.execute(f"SELECT count(*) {wrong}").fetchall()
        if count:
            ((first,),) = connection.execute(f"SELECT {quote(column)} {wrong} LIMIT 1").fetchall()
            yield f"column {column} has no time in {count:,} rows (first: {first!r})"


def _field_faults(
    connection: duckdb.DuckDBPyConnection,
    scan: str,
    view: Any,
    keys: tuple[str, ...],
    mapped: dict[str, str],
    columns: dict[str, pa.DataType],
) -> Iterator[str]:
    """Yield fields whose values don't convert to the declared type, or can't be encoded as their kind."""
    there = [field for field in view.features if mapped.get(field.name, field.name) in columns]
    read = ", ".join(f"{quote(mapped.get(f.name, f.name))} AS {quote(f.name)}" for f in there)
    rows = fetch(connection, f"SELECT {read} FROM {scan} LIMIT {_SAMPLE}") if there else pa.table({})
    for field in there:
        try:
            if field.tags.get("kind") != "drop":
                _try_encoding(contract_field(view.name, keys, field), field, rows.column(field.name))
        except UsageError as error:
            yield str(error)
        except (MmloraError, pa.ArrowException, duckdb.Error) as error:
            kind = columns[mapped.get(field.name, field.name)]
            yield f"field {field.name} is {field.dtype}, but its column {kind}: {error}"


def _try_encoding(contract: FeatureField, field: Any, column: pa.ChunkedArray) -> None:
    from feast.type_map import feast_value_type_to_pa

    if "format" not in field.tags:  # with a format, texts and numbers are parsed as times, not cast
        column.cast(feast_value_type_to_pa(field.dtype.to_value_type()))
    now = pa.chunked_array([pa.nulls(len(column), TIMESTAMP)])
    from mmlora.encoding.fields import fitter  # imports torch, which only checks of a user's own views need

    fitter(contract, 1).add(to_input(contract, column, now))


def _without_name(error: UsageError, view: Any) -> str:
    text = str(error).removeprefix(f"feature view {view.name}")
    return text.removeprefix(":").strip()
