"""What readers of a domain are promised: how old its scores may be, and how long its short list is."""

import sqlalchemy as sa
from alembic import context, op

from mmlora.warehouse.tables import id_column_type

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    domain = id_column_type(context.config.attributes["ids"], "domain")
    op.create_table(
        "promises",
        sa.Column("domain_id", domain, nullable=False, autoincrement=False),
        sa.Column("max_age_days", sa.Integer, nullable=False),
        sa.Column("top_k", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("domain_id", name="pk_promises"),
    )


def downgrade() -> None:
    for view in ("scores_topk", "scores_latest", "scores_published"):  # they read it
        op.execute(f"DROP VIEW IF EXISTS {view}")
    op.drop_table("promises")
