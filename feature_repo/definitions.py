"""The entities, feature views and feature services that Feast is given.

Profile views hold each imported column; what it is to the model is said by the field's tags, and the services
take the columns that are not left out (:mod:`mmlora.features.columns` decides). Activity and affinity views
are those that ``mmlora features build`` computes. Views of your own stand in a file beside this one: see
``README.md``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, FeastType, Float32, Float64, Int64, String, UnixTimestamp

from mmlora.features.affinity import MOST, Affinity
from mmlora.features.columns import Column
from mmlora.features.derived import Derived
from mmlora.features.views import ACTIVITY_VIEWS, ActivityView
from mmlora.schema import CREATED_TIMESTAMP, ENTITY_KEYS, EVENT_TIMESTAMP, IdTypes

DROPPED = "drop"
"""Tag ``kind`` of a field that Feast knows and the services leave out."""


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


def views(
    offline: Path,
    entities: dict[str, Entity],
    columns: Sequence[Column],
    affinity: Affinity,
    derived: Sequence[Derived],
) -> list[FeatureView]:
    """Return the profile views (tag ``mmlora=profile``), activity and affinity views (``mmlora=input``)."""
    fields: dict[str, list[Field]] = {}
    for column in columns:
        if (dtype := _feast_type(column.stats.type)) is not None:
            tags = {"kind": DROPPED} if column.kind == "drop" else dict(column.tags)
            fields.setdefault(column.entity, []).append(Field(name=column.name, dtype=dtype, tags=tags))
    profiles = [
        _view(f"{name}_profile", offline / "profiles" / name, [entities[name]], of_entity, "profile")
        for name, of_entity in fields.items()
    ]
    activities = [_activity_view(view, offline, entities) for view in ACTIVITY_VIEWS]
    activities.append(_history_view(offline, entities))
    profiles += _derived_views(offline, entities, columns, derived)
    return [*profiles, *activities, *_affinity_views(offline, entities, columns, affinity)]


def _history_view(offline: Path, entities: dict[str, Entity]) -> FeatureView:
    ids = Int64 if entities["item"].value_type == ValueType.INT64 else String
    history = {"kind": "history", **{name: f"user_history__{name}" for name in ("rows", "clicks")}}
    fields = [
        Field(name="items", dtype=Array(ids), tags=history),
        Field(name="rows", dtype=Array(Float32), tags={"kind": "counts"}),
        Field(name="clicks", dtype=Array(Float32), tags={"kind": "counts"}),
    ]
    folder = offline / "features" / "user_history"
    return _view("user_history", folder, [entities["user"]], fields, "input")


def _derived_views(
    offline: Path, entities: dict[str, Entity], columns: Sequence[Column], derived: Sequence[Derived]
) -> list[FeatureView]:
    kinds = {(column.entity, column.name): column.kind for column in columns}
    fields: dict[tuple[str, str], list[Field]] = {}
    for of in derived:
        dtype = Float32 if of.column else UnixTimestamp
        left_out = of.column and kinds.get((of.entity, of.column)) not in ("log", "dense")
        field = Field(name=of.name, dtype=dtype, tags={"kind": DROPPED} if left_out else {})
        fields.setdefault((of.entity, of.view), []).append(field)
    return [
        _view(view, offline / "derived" / entity, [entities[entity]], of_view, "profile")
        for (entity, view), of_view in fields.items()
    ]


def _affinity_views(
    offline: Path, entities: dict[str, Entity], columns: Sequence[Column], affinity: Affinity
) -> list[FeatureView]:
    kinds = {column.name: column.kind for column in columns if column.entity == "item"}
    found = []
    for view in affinity.views:
        keys = [entities[name] for name, key in ENTITY_KEYS.items() if key in view.keys]
        fields: list[Field] = []
        if view.name == "user_taste":
            for name in affinity.vectors:
                tags = {"dot": f"item_profile__{name}"} if kinds.get(name) == "vector" else {"kind": DROPPED}
                fields.append(Field(name=name, dtype=Array(Float32), tags=tags))
        else:
            for name, kind in affinity.attributes.items():
                kept = kinds.get(name) in ("bag", "categorical")
                fields += _affinity_fields(view.name, name, Int64 if kind == "int64" else String, kept)
        found.append(_view(view.name, offline / "features" / view.name, keys, fields, "input"))
    return found


def _affinity_fields(view: str, name: str, dtype: FeastType, kept: bool) -> list[Field]:
    """Return the bag of values met and its elements' weights; unless kept, for older models alone."""
    item = f"item_profile__{name}"
    bag = {"match": item, "vocabulary": item, "max_length": str(MOST)}
    weights = {"kind": "weights", "weights": f"{view}__{name}", "max_length": str(MOST)}
    left_out = {"kind": DROPPED}
    return [
        Field(name=name, dtype=Array(dtype), tags=bag if kept else left_out),
        Field(name=f"{name}_lift", dtype=Array(Float32), tags=weights if kept else left_out),
        Field(name=f"{name}_rows", dtype=Array(Float32), tags=weights if kept else left_out),
    ]


def services(views: list[FeatureView]) -> list[FeatureService]:
    """Return ``mmlora_profiles`` (views tagged ``profile``) and ``mmlora_all`` (``input`` as well)."""
    profiles = [_kept(view) for view in views if view.tags.get("mmlora") == "profile" and _names(view)]
    inputs = [_kept(view) for view in views if view.tags.get("mmlora") == "input" and _names(view)]
    return [
        FeatureService(name="mmlora_profiles", features=profiles),
        FeatureService(name="mmlora_all", features=profiles + inputs),
    ]


def _names(view: FeatureView) -> list[str]:
    return [f.name for f in view.features if f.tags.get("kind") != DROPPED]


def _kept(view: FeatureView) -> FeatureView:
    """Return the view, without the fields that are left out."""
    return view if len(_names(view)) == len(view.features) else view[_names(view)]


def _activity_view(view: ActivityView, offline: Path, entities: dict[str, Entity]) -> FeatureView:
    keys = [entities[name] for name, key in ENTITY_KEYS.items() if key in view.keys]
    fields = [_activity_field(name) for name in view.features]
    return _view(view.name, offline / "features" / view.name, keys, fields, "input")


def _activity_field(name: str) -> Field:
    # Counts are floats, since integers would be categories; their logarithm is what a dense input wants.
    count = name.startswith(("interactions_", "clicks_", "users_", "items_"))
    return Field(name=name, dtype=Float32, tags={"transform": "log1p"} if count else {})


def _view(name: str, folder: Path, keys: list[Entity], fields: list[Field], tag: str) -> FeatureView:
    source = FileSource(
        name=name,
        path=str(folder.absolute()),
        file_format=ParquetFormat(),
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=CREATED_TIMESTAMP,
    )
    return FeatureView(
        name=name, entities=keys, schema=fields, source=source, online=False, tags={"mmlora": tag}
    )


def _feast_type(kind: pa.DataType) -> FeastType | None:
    if pa.types.is_list(kind):
        if pa.types.is_floating(kind.value_type):
            return Array(Float32)
        return Array(String) if pa.types.is_string(kind.value_type) else None
    if pa.types.is_floating(kind):
        return Float64 if pa.types.is_float64(kind) else Float32
    if pa.types.is_integer(kind):
        return Int64
    if pa.types.is_timestamp(kind):
        return UnixTimestamp
    return String if pa.types.is_string(kind) else None
