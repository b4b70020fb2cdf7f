"""What a decision about a model was based on, and the loads that score beside the published ones."""

import sqlalchemy as sa
from alembic import context, op

from mmlora.warehouse.tables import UtcTimestamp, id_column_type, json_type, key_type

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    domain = id_column_type(context.config.attributes["ids"], "domain")
    op.add_column("promotions", sa.Column("evidence", json_type()))
    op.create_table(
        "shadow_loads",
        sa.Column("load_key", key_type(), nullable=False, autoincrement=True, primary_key=True),
        sa.Column("load_id", sa.Text, nullable=False),
        sa.Column("domain_id", domain, nullable=False),
        sa.Column("score_date", sa.Date, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("content_hash", sa.Text, nullable=False),
        sa.Column("checks", json_type(), nullable=False),
        sa.Column("scored_at", UtcTimestamp, nullable=False),
        sa.Column("rows_freed_at", UtcTimestamp),
        sa.UniqueConstraint("load_id", name="uq_shadow_loads_load_id"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("shadow_loads")
    op.drop_column("promotions", "evidence")
