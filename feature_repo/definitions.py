"""The entities, feature views and feature services that Feast is given.

Profile views take their fields from the imported tables; activity views are those that
``mmlora features build`` computes. Views of your own stand in a file beside this one: see ``README.md``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, FeastType, Float32, Float64, Int64, String

from mmlora.schema import CREATED_TIMESTAMP, ENTITY_KEYS, EVENT_TIMESTAMP, IdTypes

_WINDOWED = ("7d", "30d", "ever")
_ALL_WINDOWS = ("1d", *_WINDOWED)


def entities(offline: Path) -> dict[str, Entity]:
    """Return the entities ``user``, ``item`` and ``domain``, typed as the imported ids are."""
    ids = IdTypes(**json.loads((offline / "ids.json").read_text(encoding="utf-8")))
    return {
        name: Entity(
            name=name,
            join_keys=[key],
            value_type=ValueType.INT64 if pa.types.is_integer(ids.arrow(name)) else ValueType.STRING,
        )
        for name, key in ENTITY_KEYS.items()
    }


def views(offline: Path, entities: dict[str, Entity]) -> list[FeatureView]:
    """Return the profile views (tag ``mmlora=profile``) and the activity views (``mmlora=input``)."""
    profiles = [
        _view(f"{name}_profile", offline / "profiles" / name, [entity], _profile_fields(folder), "profile")
        for name, entity in entities.items()
        if any((folder := offline / "profiles" / name).glob("*.parquet"))
    ]
    user, item, domain = entities["user"], entities["item"], entities["domain"]
    month = ["interactions_30d", "users_30d", "items_30d", "density_30d", "ctr_30d"]
    activity: dict[str, tuple[list[Entity], list[str]]] = {
        "user_activity": ([user], [*_counts(_ALL_WINDOWS), "days_since_last_seen"]),
        "item_activity": ([item], [*_counts(_ALL_WINDOWS), "days_since_last_seen"]),
        "domain_activity": ([domain], month),
        "user_domain_activity": ([user, domain], _counts(_WINDOWED)),
        "item_domain_activity": ([item, domain], _counts(_WINDOWED)),
    }
    return profiles + [
        _view(name, offline / "features" / name, keys, [_activity_field(f) for f in fields], "input")
        for name, (keys, fields) in activity.items()
    ]


def services(views: list[FeatureView]) -> list[FeatureService]:
    """Return ``mmlora_profiles`` (views tagged ``profile``) and ``mmlora_all`` (``input`` as well)."""
    profiles = [view for view in views if view.tags.get("mmlora") == "profile"]
    inputs = [view for view in views if view.tags.get("mmlora") == "input"]
    return [
        FeatureService(name="mmlora_profiles", features=profiles),
        FeatureService(name="mmlora_all", features=profiles + inputs),
    ]


def _counts(windows: tuple[str, ...]) -> list[str]:
    return [f"{what}_{window}" for window in windows for what in ("interactions", "clicks", "ctr")]


def _activity_field(name: str) -> Field:
    # Counts are floats, since integers would be categories; their logarithm is what a dense input wants.
    count = name.startswith(("interactions_", "clicks_", "users_", "items_"))
    return Field(name=name, dtype=Float32, tags={"transform": "log1p"} if count else {})


def _view(name: str, folder: Path, keys: list[Entity], fields: list[Field], tag: str) -> FeatureView:
    source = FileSource(
        name=name,
        path=str(folder.resolve()),
        file_format=ParquetFormat(),
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=CREATED_TIMESTAMP,
    )
    return FeatureView(
        name=name, entities=keys, schema=fields, source=source, online=False, tags={"mmlora": tag}
    )


def _profile_fields(folder: Path) -> list[Field]:
    """Return a field for each column of the imported table that can be a feature."""
    files = sorted(folder.glob("*.parquet"))
    schema = pa.unify_schemas(
        [pq.read_schema(path).remove_metadata() for path in files], promote_options="permissive"
    )
    reserved = {*ENTITY_KEYS.values(), EVENT_TIMESTAMP, CREATED_TIMESTAMP}
    types = [(field.name, _feast_type(field.type)) for field in schema if field.name not in reserved]
    return [Field(name=name, dtype=dtype) for name, dtype in types if dtype is not None]


def _feast_type(kind: pa.DataType) -> FeastType | None:
    if pa.types.is_list(kind):
        if pa.types.is_floating(kind.value_type):
            return Array(Float32)
        return Array(String) if pa.types.is_string(kind.value_type) else None
    if pa.types.is_floating(kind):
        return Float64 if pa.types.is_float64(kind) else Float32
    if pa.types.is_integer(kind):
        return Int64
    return String if pa.types.is_string(kind) else None
