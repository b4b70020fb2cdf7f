"""What people did to publications, why domains of a night failed, what a rollback went back to."""

import sqlalchemy as sa
from alembic import context, op

from mmlora.warehouse.tables import UtcTimestamp, id_column_type, key_type

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    domain = id_column_type(context.config.attributes["ids"], "domain")
    op.create_table(
        "publication_ledger",
        sa.Column("id", key_type(), nullable=False, autoincrement=True, primary_key=True),
        sa.Column("domain_id", domain, nullable=False),
        sa.Column("score_date", sa.Date, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("load_id", sa.Text, nullable=False),
        sa.Column("before_load_id", sa.Text),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("decided_at", UtcTimestamp, nullable=False),
        sa.CheckConstraint(
            "action IN ('unpublish', 'restore', 'override')", name="ck_publication_ledger_action"
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "night_failures",
        sa.Column("domain_id", domain, nullable=False, autoincrement=False),
        sa.Column("score_date", sa.Date, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("recorded_at", UtcTimestamp, nullable=False),
        sa.PrimaryKeyConstraint("domain_id", "score_date", name="pk_night_failures"),
    )
    op.add_column("promotions", sa.Column("goes_back_to", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("promotions", "goes_back_to")
    for table in ("night_failures", "publication_ledger"):
        op.drop_table(table)
