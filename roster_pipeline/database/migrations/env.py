"""How Alembic runs a migration here: always on the connection, and in the transaction, that `migrate.py` has opened."""

from alembic import context

attributes = context.config.attributes
context.configure(connection=attributes["connection"], version_table_schema=attributes["version_schema"])
context.run_migrations()
