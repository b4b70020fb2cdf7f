"""Definitions shared by all packages: column names, id types, feature contract, verdicts, states.

This module does no I/O; every other module may import it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, time
from functools import cached_property
from typing import Literal

import pyarrow as pa

from mmlora.check_rules import AuditCheck
from mmlora.names import Adaptation as Adaptation
from mmlora.names import BackboneName as BackboneName
from mmlora.names import ColumnKind as ColumnKind
from mmlora.names import FeatureGroup as FeatureGroup
from mmlora.names import FieldKind as FieldKind
from mmlora.names import GateInput as GateInput
from mmlora.names import LoadState as LoadState
from mmlora.names import SplitName as SplitName
from mmlora.names import Verdict as Verdict
from mmlora.names import valid_names as valid_names

USER_ID = "user_id"
ITEM_ID = "item_id"
DOMAIN_ID = "domain_id"
EVENT_TIMESTAMP = "event_timestamp"
KNOWN_AT = "known_at"
CREATED_TIMESTAMP = "created_timestamp"
LABEL = "label"
SCORE = "score"
POSITION = "position"
SCORE_DATE = "score_date"
LOAD_KEY = "load_key"

MAX_ID_BYTES = 1000
"""A pair of longer ids doesn't fit into PostgreSQL's index of the scores."""
_INT64 = re.compile(r"-?[0-9]+")

INTERACTION_KEY = (USER_ID, ITEM_ID, DOMAIN_ID, EVENT_TIMESTAMP)
TIMESTAMP = pa.timestamp("us", tz="UTC")

Id = int | str
IdType = Literal["int64", "string"]
Entity = Literal["user", "item", "domain"]
ENTITY_KEYS: dict[Entity, str] = {"user": USER_ID, "item": ITEM_ID, "domain": DOMAIN_ID}


def midnight(day: date) -> datetime:
    """Return ``day`` 00:00 UTC, the moment as of which a scoring date reads features."""
    return datetime.combine(day, time(), tzinfo=UTC)


@dataclass(frozen=True)
class IdTypes:
    """Types of the three id columns, chosen at the first import."""

    user: IdType = "int64"
    item: IdType = "int64"
    domain: IdType = "string"

    def arrow(self, entity: Entity) -> pa.DataType:
        """Return the Arrow type of an entity's id column."""
        return pa.int64() if getattr(self, entity) == "int64" else pa.string()

    def parse(self, entity: Entity, text: Id) -> Id:
        """Convert a command-line text to an id of the entity's type; raise ``ValueError`` if it can't be."""
        if getattr(self, entity) == "string":
            return str(text)
        number = int(text)
        if not _INT64.fullmatch(str(text)) or not -(2**63) <= number < 2**63:
            raise ValueError(f"{text!r} is not a 64-bit integer")
        return number

    def to_dict(self) -> dict[str, str]:
        """Return a JSON-ready mapping."""
        return asdict(self)


def interactions_schema(ids: IdTypes) -> pa.Schema:
    """Return the schema of interactions: one row per (user, item, domain, event_timestamp, known_at)."""
    return pa.schema(
        [
            pa.field(USER_ID, ids.arrow("user"), nullable=False),
            pa.field(ITEM_ID, ids.arrow("item"), nullable=False),
            pa.field(DOMAIN_ID, ids.arrow("domain"), nullable=False),
            pa.field(EVENT_TIMESTAMP, TIMESTAMP, nullable=False),
            pa.field(KNOWN_AT, TIMESTAMP, nullable=False),
            pa.field(LABEL, pa.int8(), nullable=False),
        ]
    )


def scores_schema(ids: IdTypes) -> pa.Schema:
    """Return a staged load's schema: the warehouse's ``scores`` without ``load_key``."""
    return pa.schema(
        [
            pa.field(USER_ID, ids.arrow("user"), nullable=False),
            pa.field(ITEM_ID, ids.arrow("item"), nullable=False),
            pa.field(DOMAIN_ID, ids.arrow("domain"), nullable=False),
            pa.field(SCORE_DATE, pa.date32(), nullable=False),
            pa.field(SCORE, pa.float32(), nullable=False),
            pa.field(POSITION, pa.int32(), nullable=False),
        ]
    )


@dataclass(frozen=True)
class FeatureField:
    """An input of the model, as resolved by Feast.

    Attributes:
        name: Feast's full feature name (``user_profile__age``), or an id column's own name.
        view: the feature view; empty for an id.
        keys: the id columns that determine its value, e.g. ``("user_id", "domain_id")``.
        dtype: Feast's value type (``INT64``, ``STRING``, ``FLOAT``, ``FLOAT_LIST``, ``STRING_LIST``, ...).
        kind: how it is encoded; follows the dtype unless a tag ``kind`` overrides it.
        tags: the Feast field's tags, sorted; ``transform=log`` and ``log1p`` apply to dense fields.
    """

    name: str
    view: str
    keys: tuple[str, ...]
    dtype: str
    kind: FieldKind
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def side(self) -> Entity:
        """The entity that determines the value: item or user (with or without the domain), or the domain."""
        if ITEM_ID in self.keys:
            return "item"
        return "user" if USER_ID in self.keys else "domain"

    @property
    def partner(self) -> str:
        """The field that it is matched or multiplied with, or the bag that it weights; empty for none."""
        return self.tag("weights") or self.tag("match") or self.tag("dot")

    def tag(self, key: str, default: str = "") -> str:
        """Return a tag's value."""
        return dict(self.tags).get(key, default)


def items_of(history: str) -> str:
    """Return the name of the items' vectors with which a history's vectors are multiplied."""
    return f"{history}.item"


@dataclass(frozen=True)
class FeatureContract:
    """The resolved FeatureService that a bundle was trained on.

    The fields are ordered: first the ids (user, item, domain), then the views' fields in the service's order.
    """

    service: str
    fields: tuple[FeatureField, ...]

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the canonical JSON (64 hex digits)."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the vectors of encoded rows: the fields' vectors, and the items' vectors of histories."""
        of_kind = {kind: [f.name for f in self.fields if f.kind == kind] for kind in valid_names(FieldKind)}
        histories = [name for of in of_kind["history"] for name in (of, items_of(of))]
        return (*of_kind["vector"], *of_kind["weights"], *histories)

    def without_history(self) -> FeatureContract:
        """Return the contract without the histories of items."""
        return replace(self, fields=tuple(f for f in self.fields if f.kind not in ("history", "counts")))

    def keyed_by(self, keys: Iterable[str]) -> FeatureContract:
        """Return the contract of the fields whose keys are all among ``keys``."""
        present = set(keys)
        return replace(self, fields=tuple(f for f in self.fields if present.issuperset(f.keys)))

    def to_json(self) -> str:
        """Return canonical JSON, identical for equal contracts."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> FeatureContract:
        """Build a contract from what :meth:`to_json` returned."""
        raw = json.loads(text)
        fields = tuple(
            FeatureField(**{**f, "keys": tuple(f["keys"]), "tags": tuple((k, v) for k, v in f["tags"])})
            for f in raw["fields"]
        )
        return cls(raw["service"], fields)


@dataclass(frozen=True)
class DomainVerdict:
    """The sparsity suite's result for a domain over the trailing window.

    Attributes:
        rows, positives, users, items: counts in the window.
        density: rows / (users * items).
        ctr: positives / rows, or None without rows.
        verdict: ``rich``, ``thin``, ``absent`` or ``broken``.
        policy: the consequence of the verdict, in a clause.
        reasons: the failed expectations that led to the verdict.
        checks: the outcome of each check of the interactions; empty in verdicts of before they were kept.
    """

    domain_id: Id
    as_of: date
    verdict: Verdict
    rows: int
    positives: int
    users: int
    items: int
    density: float
    ctr: float | None
    policy: str
    reasons: tuple[str, ...] = ()
    checks: tuple[AuditCheck, ...] = ()


def fingerprint(value: Mapping[str, object] | list[object] | str) -> str:
    """Return the SHA-256 (64 hex digits) of a JSON-serialisable value in canonical form."""
    text = (
        value
        if isinstance(value, str)
        else json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    )
    return hashlib.sha256(text.encode()).hexdigest()
