"""How good a published night turned out to be, once its labels were known."""

import sqlalchemy as sa
from alembic import context, op

from mmlora.warehouse.tables import UtcTimestamp, id_column_type

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    domain = id_column_type(context.config.attributes["ids"], "domain")
    op.create_table(
        "night_quality",
        sa.Column("domain_id", domain, nullable=False, autoincrement=False),
        sa.Column("score_date", sa.Date, nullable=False),
        sa.Column("load_id", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("impressions", sa.BigInteger, nullable=False),
        sa.Column("scored", sa.BigInteger, nullable=False),
        sa.Column("clicks", sa.BigInteger, nullable=False),
        sa.Column("auc", sa.Double),
        sa.Column("logloss", sa.Double),
        sa.Column("calibration", sa.Double),
        sa.Column("against", sa.Text),
        sa.Column("auc_gain", sa.Double),
        sa.Column("auc_gain_low", sa.Double),
        sa.Column("auc_gain_high", sa.Double),
        sa.Column("evaluated_at", UtcTimestamp, nullable=False),
        sa.PrimaryKeyConstraint("domain_id", "score_date", name="pk_night_quality"),
    )


def downgrade() -> None:
    op.drop_table("night_quality")
