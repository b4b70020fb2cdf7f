"""The outcome of each check of a domain's interactions; earlier verdicts have none."""

import sqlalchemy as sa
from alembic import op

from mmlora.warehouse.tables import json_type

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("domain_verdicts", sa.Column("checks", json_type()))


def downgrade() -> None:
    op.execute("DROP VIEW IF EXISTS nights")  # it reads the table
    op.drop_column("domain_verdicts", "checks")
