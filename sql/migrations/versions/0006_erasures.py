"""Which users were erased: salted hashes, never ids."""

import sqlalchemy as sa
from alembic import op

from mmlora.warehouse.tables import UtcTimestamp, json_type, key_type

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("id", key_type(), nullable=False, autoincrement=True, primary_key=True),
        sa.Column("salt", sa.Text, nullable=False),
        sa.Column("user_hash", sa.Text, nullable=False),
        sa.Column("models", json_type(), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("begun_at", UtcTimestamp, nullable=False),
        sa.Column("finished_at", UtcTimestamp),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("erasures")
