"""The warehouse's tables and views, as SQLAlchemy Core objects.

Id columns are BIGINT or TEXT, so the tables are a function of the :class:`IdTypes`. The migrations in
``sql/migrations`` create what is declared here; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator, TypeEngine

from mmlora.names import LedgerAction
from mmlora.resources import resource
from mmlora.schema import Entity, IdTypes, LoadState, Verdict, valid_names
from mmlora.warehouse.backends import backend_of

VERSION_TABLE = "mmlora_version"  # MLflow and Airflow may share the database, and use Alembic's default name

_NAMES = {"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"}


class UtcTimestamp(TypeDecorator[datetime]):
    """A moment in UTC; always aware in Python."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        """Choose the column type."""
        return dialect.type_descriptor(backend_of(dialect).timestamp())

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Convert an aware moment to UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return an aware moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class _TextId(TypeDecorator[str]):
    """A text id that sorts by bytes."""

    impl = sa.Text()
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        """Choose the column type."""
        return dialect.type_descriptor(backend_of(dialect).text_id())


class _Json(TypeDecorator[Any]):
    """A JSON value."""

    impl = sa.JSON(none_as_null=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        """Choose the column type."""
        return dialect.type_descriptor(backend_of(dialect).json())


class _GeneratedKey(TypeDecorator[int]):
    """An integer that the database generates."""

    impl = sa.BigInteger()
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> TypeEngine[Any]:
        """Choose the column type."""
        return dialect.type_descriptor(backend_of(dialect).generated_key())


def views() -> tuple[str, ...]:
    """Return the names of the warehouse's views."""
    return tuple(sorted(path.stem for path in resource("sql/views").glob("*.sql")))


def id_column_type(ids: IdTypes, entity: Entity) -> TypeEngine[Any]:
    """Return the column type of an entity's ids."""
    return sa.BigInteger() if getattr(ids, entity) == "int64" else _TextId()


def json_type() -> TypeEngine[Any]:
    """Return the type of the JSON columns."""
    return _Json()


def key_type() -> TypeEngine[Any]:
    """Return the type of generated keys."""
    return _GeneratedKey()


@dataclass(frozen=True)
class Tables:
    """The tables for one choice of id types."""

    metadata: sa.MetaData
    workspace: sa.Table
    scores: sa.Table
    score_loads: sa.Table
    score_models: sa.Table
    publications: sa.Table
    promotions: sa.Table
    domain_verdicts: sa.Table
    publication_ledger: sa.Table
    night_failures: sa.Table
    promises: sa.Table
    erasures: sa.Table
    night_quality: sa.Table
    shadow_loads: sa.Table


def _one_of(column: str, names: tuple[str, ...], constraint: str) -> sa.CheckConstraint:
    listed = ", ".join(f"'{name}'" for name in names)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=constraint)


@lru_cache(maxsize=16)
def tables(ids: IdTypes) -> Tables:
    """Return the tables whose id columns have the given types."""
    metadata = sa.MetaData(naming_convention=_NAMES)
    domain = id_column_type(ids, "domain")
    return Tables(
        metadata=metadata,
        workspace=sa.Table(
            "workspace",
            metadata,
            sa.Column("name", sa.Text, primary_key=True),
            sa.Column("value", json_type(), nullable=False),
        ),
        scores=_scores(metadata, ids),
        score_loads=_score_loads(metadata, domain),
        score_models=_score_models(metadata),
        publications=sa.Table(
            "publications",
            metadata,
            sa.Column("domain_id", domain, primary_key=True, autoincrement=False),
            sa.Column("score_date", sa.Date, primary_key=True),
            sa.Column(
                "load_key",
                sa.ForeignKey("score_loads.load_key", name="fk_publications_load_key"),
                nullable=False,
            ),
            sa.Column("published_at", UtcTimestamp, nullable=False),
        ),
        promotions=sa.Table(
            "promotions",
            metadata,
            sa.Column("id", key_type(), primary_key=True, autoincrement=True),
            sa.Column("domain_id", domain),  # null: for all domains
            sa.Column("model_version", sa.Text, nullable=False),
            sa.Column("alias", sa.Text, nullable=False),
            sa.Column("who", sa.Text, nullable=False),
            sa.Column("why", sa.Text, nullable=False),
            sa.Column("metrics", json_type(), nullable=False),
            sa.Column("promoted_at", UtcTimestamp, nullable=False),
            sa.Column("goes_back_to", sa.BigInteger),  # for a rollback: the decision in force again
            sa.Column("evidence", json_type()),  # the comparison that it was based on; null without one
            sqlite_autoincrement=True,
        ),
        domain_verdicts=_domain_verdicts(metadata, domain),
        publication_ledger=_publication_ledger(metadata, domain),
        night_failures=sa.Table(
            "night_failures",
            metadata,
            sa.Column("domain_id", domain, primary_key=True, autoincrement=False),
            sa.Column("score_date", sa.Date, primary_key=True),
            sa.Column("reason", sa.Text, nullable=False),
            sa.Column("recorded_at", UtcTimestamp, nullable=False),
        ),
        promises=sa.Table(
            "promises",
            metadata,
            sa.Column("domain_id", domain, primary_key=True, autoincrement=False),
            sa.Column("max_age_days", sa.Integer, nullable=False),
            sa.Column("top_k", sa.Integer, nullable=False),
        ),
        erasures=sa.Table(
            "erasures",
            metadata,
            sa.Column("id", key_type(), primary_key=True, autoincrement=True),
            sa.Column("salt", sa.Text, nullable=False),
            sa.Column("user_hash", sa.Text, nullable=False),
            sa.Column("models", json_type(), nullable=False),
            sa.Column("who", sa.Text, nullable=False),
            sa.Column("why", sa.Text, nullable=False),
            sa.Column("begun_at", UtcTimestamp, nullable=False),
            sa.Column("finished_at", UtcTimestamp),  # null while it is under way, or when it was killed
            sqlite_autoincrement=True,
        ),
        night_quality=_night_quality(metadata, domain),
        shadow_loads=_shadow_loads(metadata, domain),
    )


def _scores(metadata: sa.MetaData, ids: IdTypes) -> sa.Table:
    # No foreign key on load_key: PostgreSQL would check it for each row, and rows are written in bulk. No
    # index except the key: a read by domain, user and date goes through the pointer to (load_key, user_id),
    # and a second index would halve the write speed.
    return sa.Table(
        "scores",
        metadata,
        sa.Column("load_key", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("user_id", id_column_type(ids, "user"), primary_key=True, autoincrement=False),
        sa.Column("item_id", id_column_type(ids, "item"), primary_key=True, autoincrement=False),
        sa.Column("domain_id", id_column_type(ids, "domain"), nullable=False),
        sa.Column("score_date", sa.Date, primary_key=True),
        sa.Column("score", sa.REAL, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.CheckConstraint("score >= 0 AND score <= 1", name="ck_scores_score"),
        postgresql_partition_by="RANGE (score_date)",
        sqlite_with_rowid=False,  # rows in key order: one tree to write, and a user's rows are together
    )


def _score_loads(metadata: sa.MetaData, domain: TypeEngine[Any]) -> sa.Table:
    return sa.Table(
        "score_loads",
        metadata,
        sa.Column("load_key", key_type(), primary_key=True, autoincrement=True),
        sa.Column("load_id", sa.Text, nullable=False, unique=True),
        sa.Column("domain_id", domain, nullable=False),
        sa.Column("score_date", sa.Date, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("contract_hash", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger),
        sa.Column("content_hash", sa.Text),
        sa.Column("checks", json_type()),
        sa.Column("reason", sa.Text),
        sa.Column("started_at", UtcTimestamp, nullable=False),
        sa.Column("heartbeat_at", UtcTimestamp, nullable=False),
        sa.Column("staged_at", UtcTimestamp),
        sa.Column("finished_at", UtcTimestamp),
        sa.Column("processor", sa.Text),
        sa.Column("kernels", sa.Text),
        sa.Column("torch_version", sa.Text),
        sa.Column("rows_freed_at", UtcTimestamp),  # from then on its rows are neither read nor restored
        sa.Column("rows_deleted_at", UtcTimestamp),  # when the last of its rows was deleted
        sa.Column("code_version", sa.Text),  # mmlora's, when it began
        sa.UniqueConstraint("domain_id", "score_date", "attempt"),
        _one_of("state", valid_names(LoadState), "ck_score_loads_state"),
        sqlite_autoincrement=True,  # keys of deleted loads are never reused
    )


def _score_models(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "score_models",
        metadata,
        sa.Column("model_version", sa.Text, primary_key=True),
        sa.Column("bundle_hash", sa.Text, nullable=False),
        sa.Column("as_of", sa.Date, nullable=False),
        sa.Column("data_fingerprint", sa.Text, nullable=False),
        sa.Column("contract_hash", sa.Text, nullable=False),
        sa.Column("code_version", sa.Text, nullable=False),
        sa.Column("base", sa.Text),  # the version that it was composed from
    )


def _publication_ledger(metadata: sa.MetaData, domain: TypeEngine[Any]) -> sa.Table:
    return sa.Table(
        "publication_ledger",
        metadata,
        sa.Column("id", key_type(), primary_key=True, autoincrement=True),
        sa.Column("domain_id", domain, nullable=False),
        sa.Column("score_date", sa.Date, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("load_id", sa.Text, nullable=False),
        sa.Column("before_load_id", sa.Text),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("decided_at", UtcTimestamp, nullable=False),
        _one_of("action", valid_names(LedgerAction), "ck_publication_ledger_action"),
        sqlite_autoincrement=True,
    )


def _domain_verdicts(metadata: sa.MetaData, domain: TypeEngine[Any]) -> sa.Table:
    return sa.Table(
        "domain_verdicts",
        metadata,
        sa.Column("domain_id", domain, primary_key=True, autoincrement=False),
        sa.Column("as_of", sa.Date, primary_key=True),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("positives", sa.BigInteger, nullable=False),
        sa.Column("users", sa.BigInteger, nullable=False),
        sa.Column("items", sa.BigInteger, nullable=False),
        sa.Column("density", sa.Double, nullable=False),
        sa.Column("ctr", sa.Double),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("reasons", json_type(), nullable=False),
        sa.Column("recorded_at", UtcTimestamp, nullable=False),
        sa.Column("checks", json_type()),
        _one_of("verdict", valid_names(Verdict), "ck_domain_verdicts_verdict"),
    )


def _night_quality(metadata: sa.MetaData, domain: TypeEngine[Any]) -> sa.Table:
    return sa.Table(
        "night_quality",
        metadata,
        sa.Column("domain_id", domain, primary_key=True, autoincrement=False),
        sa.Column("score_date", sa.Date, primary_key=True),
        sa.Column("load_id", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("impressions", sa.BigInteger, nullable=False),
        sa.Column("scored", sa.BigInteger, nullable=False),
        sa.Column("clicks", sa.BigInteger, nullable=False),
        sa.Column("auc", sa.Double),
        sa.Column("logloss", sa.Double),
        sa.Column("calibration", sa.Double),
        sa.Column("against", sa.Text),  # the model that the gain is over
        sa.Column("auc_gain", sa.Double),
        sa.Column("auc_gain_low", sa.Double),
        sa.Column("auc_gain_high", sa.Double),
        sa.Column("evaluated_at", UtcTimestamp, nullable=False),
    )


def _shadow_loads(metadata: sa.MetaData, domain: TypeEngine[Any]) -> sa.Table:
    # Not in score_loads: nothing that publishes, reads or plans nights has to know of them.
    return sa.Table(
        "shadow_loads",
        metadata,
        sa.Column("load_key", key_type(), primary_key=True, autoincrement=True),
        sa.Column("load_id", sa.Text, nullable=False, unique=True),
        sa.Column("domain_id", domain, nullable=False),
        sa.Column("score_date", sa.Date, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("content_hash", sa.Text, nullable=False),
        sa.Column("checks", json_type(), nullable=False),
        sa.Column("scored_at", UtcTimestamp, nullable=False),
        sa.Column("rows_freed_at", UtcTimestamp),  # from then on its file may be gone
        sqlite_autoincrement=True,
    )
