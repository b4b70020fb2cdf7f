"""What a published load goes back to: facts of its model, and the version of mmlora that scored it."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("score_loads", sa.Column("code_version", sa.Text))
    op.create_table(
        "score_models",
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("bundle_hash", sa.Text, nullable=False),
        sa.Column("as_of", sa.Date, nullable=False),
        sa.Column("data_fingerprint", sa.Text, nullable=False),
        sa.Column("contract_hash", sa.Text, nullable=False),
        sa.Column("code_version", sa.Text, nullable=False),
        sa.Column("base", sa.Text),
        sa.PrimaryKeyConstraint("model_version", name="pk_score_models"),
    )


def downgrade() -> None:
    op.execute("DROP VIEW IF EXISTS published_lineage")  # it reads both
    op.drop_table("score_models")
    op.drop_column("score_loads", "code_version")
