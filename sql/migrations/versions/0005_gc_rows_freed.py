"""Since when a load's rows are free, and since when they are deleted; no load's are yet."""

import sqlalchemy as sa
from alembic import op

from mmlora.warehouse.tables import UtcTimestamp

revision = "0005"
down_revision = "0004"

COLUMNS = ("rows_freed_at", "rows_deleted_at")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("score_loads", sa.Column(name, UtcTimestamp))


def downgrade() -> None:
    op.execute("DROP VIEW IF EXISTS nights")  # it reads one of them
    for name in COLUMNS:
        op.drop_column("score_loads", name)
