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
            sa.Column("name", sa.Text, primary_key=True, doc="the value's name"),
            sa.Column("value", json_type(), nullable=False, doc="the value"),
            info={"doc": "A JSON value per name: the warehouse's id types, and its identity."},
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
                doc="the load that readers get",
            ),
            sa.Column("published_at", UtcTimestamp, nullable=False, doc="since when"),
            info={"doc": "The pointers that readers follow: which load of a domain and date is published."},
        ),
        promotions=sa.Table(
            "promotions",
            metadata,
            sa.Column("id", key_type(), primary_key=True, autoincrement=True),
            sa.Column("domain_id", domain, doc="null: for all domains"),
            sa.Column("model_version", sa.Text, nullable=False),
            sa.Column("alias", sa.Text, nullable=False, doc="`champion` or `challenger`"),
            sa.Column("who", sa.Text, nullable=False, doc="the person or DAG that decided"),
            sa.Column("why", sa.Text, nullable=False, doc="the reason"),
            sa.Column("metrics", json_type(), nullable=False, doc="the model's test metrics"),
            sa.Column("promoted_at", UtcTimestamp, nullable=False),
            sa.Column(
                "goes_back_to",
                sa.BigInteger,
                doc="for a rollback: the decision in force again, from which the next rollback continues",
            ),
            sa.Column("evidence", json_type(), doc="the comparison that it was based on; null without one"),
            sqlite_autoincrement=True,
            info={
                "doc": (
                    "Append-only: which model is champion or challenger, since when and why. This "
                    "table is authoritative; MLflow's aliases mirror it. Registering decides in one "
                    "transaction, so that of two first models registered at once only one becomes "
                    "champion."
                )
            },
        ),
        domain_verdicts=_domain_verdicts(metadata, domain),
        publication_ledger=_publication_ledger(metadata, domain),
        night_failures=sa.Table(
            "night_failures",
            metadata,
            sa.Column("domain_id", domain, primary_key=True, autoincrement=False),
            sa.Column("score_date", sa.Date, primary_key=True),
            sa.Column("reason", sa.Text, nullable=False, doc="the message"),
            sa.Column("recorded_at", UtcTimestamp, nullable=False),
            info={
                "doc": "Why the last attempt at a night failed, in whatever step; the view nights shows it."
            },
        ),
        promises=sa.Table(
            "promises",
            metadata,
            sa.Column("domain_id", domain, primary_key=True, autoincrement=False),
            sa.Column("max_age_days", sa.Integer, nullable=False, doc="older scores have is_stale true"),
            sa.Column("top_k", sa.Integer, nullable=False, doc="positions per user in the view scores_topk"),
            info={
                "doc": (
                    "What readers of a domain are promised: the settings' promises, written at "
                    "publication and by `mmlora migrate`."
                )
            },
        ),
        erasures=sa.Table(
            "erasures",
            metadata,
            sa.Column("id", key_type(), primary_key=True, autoincrement=True),
            sa.Column("salt", sa.Text, nullable=False, doc="of the hash"),
            sa.Column("user_hash", sa.Text, nullable=False, doc="salted hash of the user's id"),
            sa.Column(
                "models",
                json_type(),
                nullable=False,
                doc="versions that had been trained with the user's rows",
            ),
            sa.Column("who", sa.Text, nullable=False),
            sa.Column("why", sa.Text, nullable=False, doc="the reason that was given"),
            sa.Column("begun_at", UtcTimestamp, nullable=False),
            sa.Column("finished_at", UtcTimestamp, doc="null while it is under way, or when it was killed"),
            sqlite_autoincrement=True,
            info={"doc": "Which users were erased, who did it and why."},
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
        sa.Column(
            "load_key", sa.BigInteger, primary_key=True, autoincrement=False, doc="the load of the row"
        ),
        sa.Column("user_id", id_column_type(ids, "user"), primary_key=True, autoincrement=False),
        sa.Column("item_id", id_column_type(ids, "item"), primary_key=True, autoincrement=False),
        sa.Column("domain_id", id_column_type(ids, "domain"), nullable=False),
        sa.Column(
            "score_date",
            sa.Date,
            primary_key=True,
            doc="the night; on PostgreSQL, what the table is partitioned by",
        ),
        sa.Column("score", sa.REAL, nullable=False, doc="calibrated probability of a click, 0 to 1"),
        sa.Column("position", sa.Integer, nullable=False, doc="place in the user's list, 1 is best"),
        sa.CheckConstraint("score >= 0 AND score <= 1", name="ck_scores_score"),
        postgresql_partition_by="RANGE (score_date)",
        sqlite_with_rowid=False,  # rows in key order: one tree to write, and a user's rows are together
        info={
            "doc": (
                "The scores of every load, published or not. Readers use the views, which show "
                "published loads only."
            )
        },
    )


def _score_loads(metadata: sa.MetaData, domain: TypeEngine[Any]) -> sa.Table:
    return sa.Table(
        "score_loads",
        metadata,
        sa.Column(
            "load_key",
            key_type(),
            primary_key=True,
            autoincrement=True,
            doc="in place of load_id where rows are many",
        ),
        sa.Column("load_id", sa.Text, nullable=False, unique=True, doc="the load in messages and commands"),
        sa.Column("domain_id", domain, nullable=False),
        sa.Column("score_date", sa.Date, nullable=False),
        sa.Column(
            "attempt",
            sa.Integer,
            nullable=False,
            doc="number of the load among those of its domain and date, from 1",
        ),
        sa.Column(
            "state",
            sa.Text,
            nullable=False,
            doc="`running`, `staged`, `published`, `superseded`, `failed` or `rejected`",
        ),
        sa.Column("model_version", sa.Text, nullable=False, doc="the model that scored"),
        sa.Column("contract_hash", sa.Text, nullable=False, doc="hash of the features that were read"),
        sa.Column("rows", sa.BigInteger, doc="rows that were audited"),
        sa.Column("content_hash", sa.Text, doc="hash of these rows"),
        sa.Column("checks", json_type(), doc="size, candidates, and each check with its outcome"),
        sa.Column("reason", sa.Text, doc="why it failed or was rejected"),
        sa.Column("started_at", UtcTimestamp, nullable=False),
        sa.Column(
            "heartbeat_at", UtcTimestamp, nullable=False, doc="when its process last said that it is running"
        ),
        sa.Column("staged_at", UtcTimestamp, doc="when its rows were complete and audited"),
        sa.Column("finished_at", UtcTimestamp, doc="when it was published, failed or rejected"),
        sa.Column("processor", sa.Text, doc="kind of processor that computed the scores"),
        sa.Column("kernels", sa.Text, doc="how kernels of matrix products are chosen"),
        sa.Column("torch_version", sa.Text),
        sa.Column("rows_freed_at", UtcTimestamp, doc="from then on its rows are neither read nor restored"),
        sa.Column("rows_deleted_at", UtcTimestamp, doc="when the last of its rows was deleted"),
        sa.Column("code_version", sa.Text, doc="mmlora's version when it began"),
        sa.UniqueConstraint("domain_id", "score_date", "attempt"),
        _one_of("state", valid_names(LoadState), "ck_score_loads_state"),
        sqlite_autoincrement=True,  # keys of deleted loads are never reused
        info={
            "doc": (
                "A row per load, i.e. per attempt at one domain and date: its state, its size, "
                "and what computed it."
            )
        },
    )


def _score_models(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "score_models",
        metadata,
        sa.Column("model_version", sa.Text, primary_key=True),
        sa.Column(
            "bundle_hash",
            sa.Text,
            nullable=False,
            doc="hash of the bundle's manifest, which names every part by its own hash",
        ),
        sa.Column("as_of", sa.Date, nullable=False, doc="the day up to which the training data was read"),
        sa.Column("data_fingerprint", sa.Text, nullable=False, doc="of the training data"),
        sa.Column("contract_hash", sa.Text, nullable=False, doc="of the features that the model reads"),
        sa.Column("code_version", sa.Text, nullable=False, doc="mmlora's version that trained it"),
        sa.Column("base", sa.Text, doc="the version that it was composed from"),
        info={
            "doc": (
                "Where each model that scored a load comes from. Written when a load begins and "
                "by `mmlora migrate`; the view published_lineage joins it to what is published."
            )
        },
    )


def _publication_ledger(metadata: sa.MetaData, domain: TypeEngine[Any]) -> sa.Table:
    return sa.Table(
        "publication_ledger",
        metadata,
        sa.Column("id", key_type(), primary_key=True, autoincrement=True),
        sa.Column("domain_id", domain, nullable=False),
        sa.Column("score_date", sa.Date, nullable=False),
        sa.Column("action", sa.Text, nullable=False, doc="`unpublish`, `restore` or `override` (of a check)"),
        sa.Column("load_id", sa.Text, nullable=False, doc="the load"),
        sa.Column("before_load_id", sa.Text, doc="the load that readers had before"),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False, doc="the reason that was given"),
        sa.Column("decided_at", UtcTimestamp, nullable=False),
        _one_of("action", valid_names(LedgerAction), "ck_publication_ledger_action"),
        sqlite_autoincrement=True,
        info={"doc": "Append-only: what people did to a load, who, why and when."},
    )


def _domain_verdicts(metadata: sa.MetaData, domain: TypeEngine[Any]) -> sa.Table:
    return sa.Table(
        "domain_verdicts",
        metadata,
        sa.Column("domain_id", domain, primary_key=True, autoincrement=False),
        sa.Column("as_of", sa.Date, primary_key=True, doc="the day whose data was checked"),
        sa.Column("verdict", sa.Text, nullable=False, doc="`rich`, `thin`, `absent` or `broken`"),
        sa.Column("rows", sa.BigInteger, nullable=False, doc="in the window"),
        sa.Column("positives", sa.BigInteger, nullable=False, doc="clicks in the window"),
        sa.Column("users", sa.BigInteger, nullable=False, doc="in the window"),
        sa.Column("items", sa.BigInteger, nullable=False, doc="in the window"),
        sa.Column("density", sa.Double, nullable=False, doc="rows / (users x items)"),
        sa.Column("ctr", sa.Double, doc="clicks / rows"),
        sa.Column("policy", sa.Text, nullable=False, doc="what the verdict means for training and scoring"),
        sa.Column("reasons", json_type(), nullable=False, doc="why it isn't rich"),
        sa.Column("recorded_at", UtcTimestamp, nullable=False),
        sa.Column("checks", json_type(), doc="the outcome of each check"),
        _one_of("verdict", valid_names(Verdict), "ck_domain_verdicts_verdict"),
        info={"doc": "A domain's verdict by day: what `mmlora validate` found in the interactions."},
    )


def _night_quality(metadata: sa.MetaData, domain: TypeEngine[Any]) -> sa.Table:
    return sa.Table(
        "night_quality",
        metadata,
        sa.Column("domain_id", domain, primary_key=True, autoincrement=False),
        sa.Column("score_date", sa.Date, primary_key=True),
        sa.Column("load_id", sa.Text, nullable=False, doc="the load that was measured"),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("impressions", sa.BigInteger, nullable=False, doc="interactions of that date"),
        sa.Column("scored", sa.BigInteger, nullable=False, doc="of these, with a published score"),
        sa.Column("clicks", sa.BigInteger, nullable=False, doc="of the scored ones"),
        sa.Column("auc", sa.Double, doc="null if all labels are the same"),
        sa.Column("logloss", sa.Double),
        sa.Column("calibration", sa.Double, doc="sum of the scores over clicks"),
        sa.Column("against", sa.Text, doc="the model that the gain is over"),
        sa.Column("auc_gain", sa.Double, doc="auc less that of the other model"),
        sa.Column("auc_gain_low", sa.Double, doc="lower end of its interval"),
        sa.Column("auc_gain_high", sa.Double, doc="upper end of its interval"),
        sa.Column("evaluated_at", UtcTimestamp, nullable=False),
        info={
            "doc": (
                "How good a published night was, by the clicks of that date; written by `mmlora evaluate`."
            )
        },
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
        sa.Column("model_version", sa.Text, nullable=False, doc="the model that scored"),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("content_hash", sa.Text, nullable=False, doc="hash of the rows"),
        sa.Column(
            "checks", json_type(), nullable=False, doc="size, candidates, and each check with its outcome"
        ),
        sa.Column("scored_at", UtcTimestamp, nullable=False),
        sa.Column("rows_freed_at", UtcTimestamp, doc="from then on its file may be gone"),
        sqlite_autoincrement=True,
        info={
            "doc": (
                "Nights scored by another model beside the published loads; their rows stay in "
                "staged files. Apart from score_loads, so that nothing that publishes, reads or "
                "plans nights has to leave them out."
            )
        },
    )
