"""What computed a load's rows, which its content hash belongs to; unknown of the loads that are there."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

COLUMNS = ("processor", "kernels", "torch_version")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("score_loads", sa.Column(name, sa.Text))


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_column("score_loads", name)
