"""A score is a probability: the database refuses another. Rows that are there aren't scanned."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

CHECK = "CONSTRAINT ck_scores_score CHECK (score >= 0 AND score <= 1)"
KEY = "CONSTRAINT pk_scores PRIMARY KEY"


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE scores ADD {CHECK} NOT VALID")
    else:
        _define_anew(KEY, f"{CHECK}, {KEY}")


def downgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE scores DROP CONSTRAINT ck_scores_score")
    else:
        _define_anew(f"{CHECK}, {KEY}", KEY)


def _define_anew(old: str, new: str) -> None:
    """Change the text that defines the table on SQLite, whose only other way is to copy all rows.

    A constraint is nothing on disk but this text (https://sqlite.org/lang_altertable.html, "Making other
    kinds of table schema changes"); a trigger instead would slow each row's insert by a third.
    """
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.execute(
        sa.text(
            "UPDATE sqlite_master SET sql = replace(sql, :old, :new) WHERE type = 'table' AND name = 'scores'"
        ),
        {"old": old, "new": new},
    )
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")  # so that every connection reads it
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
    text = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'scores'").scalar_one()
    if new not in text:
        raise RuntimeError(f"the table scores isn't defined as expected: {text}")
