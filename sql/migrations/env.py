"""Alembic's entry: runs inside the transaction that ``mmlora.warehouse.migrate`` opened."""

from alembic import context

from mmlora.warehouse.migrate import configure_options

context.configure(**configure_options(context.config))
context.run_migrations()
