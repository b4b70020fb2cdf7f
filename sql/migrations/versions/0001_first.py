"""The first warehouse: scores, loads, publications, promotions, verdicts and the choice of id types."""

import sqlalchemy as sa
from alembic import context, op

from mmlora.warehouse.tables import UtcTimestamp, id_column_type, json_type, key_type

revision = "0001"
down_revision = None


def upgrade() -> None:
    ids = context.config.attributes["ids"]
    user, item, domain = (id_column_type(ids, entity) for entity in ("user", "item", "domain"))
    op.create_table(
        "workspace",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", json_type(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_workspace"),
    )
    op.create_table(
        "scores",
        sa.Column("load_key", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("user_id", user, nullable=False, autoincrement=False),
        sa.Column("item_id", item, nullable=False, autoincrement=False),
        sa.Column("domain_id", domain, nullable=False),
        sa.Column("score_date", sa.Date, nullable=False),
        sa.Column("score", sa.REAL, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("load_key", "user_id", "item_id", "score_date", name="pk_scores"),
        postgresql_partition_by="RANGE (score_date)",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "score_loads",
        sa.Column("load_key", key_type(), nullable=False, autoincrement=True, primary_key=True),
        sa.Column("load_id", sa.Text, nullable=False),
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
        sa.UniqueConstraint("load_id", name="uq_score_loads_load_id"),
        sa.UniqueConstraint(
            "domain_id", "score_date", "attempt", name="uq_score_loads_domain_id_score_date_attempt"
        ),
        sa.CheckConstraint(
            "state IN ('running', 'staged', 'published', 'superseded', 'failed', 'rejected')",
            name="ck_score_loads_state",
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "publications",
        sa.Column("domain_id", domain, nullable=False, autoincrement=False),
        sa.Column("score_date", sa.Date, nullable=False),
        sa.Column("load_key", key_type(), nullable=False),
        sa.Column("published_at", UtcTimestamp, nullable=False),
        sa.PrimaryKeyConstraint("domain_id", "score_date", name="pk_publications"),
        sa.ForeignKeyConstraint(["load_key"], ["score_loads.load_key"], name="fk_publications_load_key"),
    )
    op.create_table(
        "promotions",
        sa.Column("id", key_type(), nullable=False, autoincrement=True, primary_key=True),
        sa.Column("domain_id", domain),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("alias", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("metrics", json_type(), nullable=False),
        sa.Column("promoted_at", UtcTimestamp, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "domain_verdicts",
        sa.Column("domain_id", domain, nullable=False, autoincrement=False),
        sa.Column("as_of", sa.Date, nullable=False),
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
        sa.PrimaryKeyConstraint("domain_id", "as_of", name="pk_domain_verdicts"),
        sa.CheckConstraint(
            "verdict IN ('rich', 'thin', 'absent', 'broken')", name="ck_domain_verdicts_verdict"
        ),
    )


def downgrade() -> None:
    for table in ("domain_verdicts", "promotions", "publications", "score_loads", "scores", "workspace"):
        op.drop_table(table)
