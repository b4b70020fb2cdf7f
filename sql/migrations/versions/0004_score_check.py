"""A score is a probability: the database refuses another. Rows that are there aren't scanned."""

from alembic import op

from mmlora.warehouse.backends import backend_of

revision = "0004"
down_revision = "0003"

CHECK = ("scores", "ck_scores_score", "score >= 0 AND score <= 1")


def upgrade() -> None:
    connection = op.get_bind()
    backend_of(connection.dialect).add_check(connection, *CHECK)


def downgrade() -> None:
    connection = op.get_bind()
    backend_of(connection.dialect).drop_check(connection, *CHECK)
