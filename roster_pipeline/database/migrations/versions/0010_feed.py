"""The feed of applied syncs. Runs the SQL file of the same name beside it."""

from pathlib import Path

from alembic import op

from roster_pipeline.database.engine import psycopg_connection
from roster_pipeline.errors import PermanentError

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    psycopg_connection(op.get_bind()).execute(Path(__file__).with_suffix(".sql").read_bytes())


def downgrade() -> None:
    raise PermanentError("Migrations only go forward: going back would drop rosters and their history.", hint="Restore a backup instead.")
