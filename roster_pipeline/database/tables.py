"""The small tables that Python reads and writes row by row, as SQLAlchemy Core tables. The migrations define them; a test compares the two.

Does not belong here: tables that only SQL models read and write.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

_metadata = sa.MetaData()
_time = sa.DateTime(timezone=True)

# The statuses of a sync that was applied, completely or in part.
APPLIED = ("successful", "held")

# The statuses of a hold that the next sync of the district looks at. The life of a hold (R7.5):
#   open      -> approved, rejected (a person: `support/holds.py`), superseded (a sync: `sync/brakes.py`)
#   approved  -> rejected (a person), used, superseded, expired (a sync)
#   rejected  -> approved (a person), superseded (a sync)
# Used, superseded and expired are ends.
PENDING_HOLDS = ("open", "approved", "rejected")

districts = sa.Table(
    "districts",
    _metadata,
    sa.Column("district_id", sa.BigInteger, primary_key=True),
    sa.Column("clever_id", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("domain", sa.Text),
    sa.Column("profile", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("start_date", sa.Date),
    sa.Column("licenses", sa.Integer),
    sa.Column("over_license_policy", sa.Text),
    sa.Column("agreed_grades", pg.ARRAY(sa.Text)),
    sa.Column("settings", pg.JSONB),
    sa.Column("rekeyed_from", sa.Text),
    sa.Column("created_at", _time),
    sa.Column("updated_at", _time),
    sa.Column("active_since", _time),
    schema="app",
)

agreed_schools = sa.Table(
    "agreed_schools",
    _metadata,
    sa.Column("agreed_school_id", sa.BigInteger, primary_key=True),
    sa.Column("district_id", sa.BigInteger),
    sa.Column("name", sa.Text),
    sa.Column("clever_id", sa.Text),
    sa.Column("licenses", sa.Integer),
    schema="app",
)

syncs = sa.Table(
    "syncs",
    _metadata,
    sa.Column("sync_id", sa.BigInteger, primary_key=True),
    sa.Column("district_id", sa.BigInteger),
    sa.Column("trigger", sa.Text),
    sa.Column("requested_by", sa.Text),
    sa.Column("requested_at", _time),
    sa.Column("reason", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("started_at", _time),
    sa.Column("finished_at", _time),
    sa.Column("snapshot_at", _time),
    sa.Column("counts", pg.JSONB),
    sa.Column("message", sa.Text),
    sa.Column("dagster_run_id", sa.Text),
    sa.Column("requested_role", sa.Text),
    sa.Column("is_applied", sa.Boolean, sa.Computed("status")),
    sa.Column("pull_no", sa.BigInteger),
    sa.Column("applied_no", sa.BigInteger),
    sa.Column("principal", sa.Text),
    schema="ops",
)

ticks = sa.Table(
    "ticks",
    _metadata,
    sa.Column("sensor", sa.Text, primary_key=True),
    sa.Column("ticked_at", _time),
    schema="ops",
)

holds = sa.Table(
    "holds",
    _metadata,
    sa.Column("hold_id", sa.BigInteger, primary_key=True),
    sa.Column("sync_id", sa.BigInteger),
    sa.Column("district_id", sa.BigInteger),
    sa.Column("kind", sa.Text),
    sa.Column("school_id", sa.BigInteger),
    sa.Column("role", sa.Text),
    sa.Column("counts", pg.JSONB),
    sa.Column("plan_hash", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("decided_by", sa.Text),
    sa.Column("decided_principal", sa.Text),
    sa.Column("decided_at", _time),
    sa.Column("expires_at", _time),
    sa.Column("used_by", sa.BigInteger),
    sa.Column("created_at", _time),
    schema="ops",
)

alerts = sa.Table(
    "alerts",
    _metadata,
    sa.Column("alert_id", sa.BigInteger, primary_key=True),
    sa.Column("event", sa.Text),
    sa.Column("kind", sa.Text),
    sa.Column("district_id", sa.BigInteger),
    sa.Column("sync_id", sa.BigInteger),
    sa.Column("facts", pg.JSONB),
    sa.Column("is_urgent", sa.Boolean),
    sa.Column("created_at", _time),
    sa.Column("closed_at", _time),
    schema="ops",
)

alert_deliveries = sa.Table(
    "alert_deliveries",
    _metadata,
    sa.Column("alert_id", sa.BigInteger, primary_key=True),
    sa.Column("receiver", sa.Text, primary_key=True),
    sa.Column("accepted_at", _time),
    schema="ops",
)

alert_receivers = sa.Table(
    "alert_receivers",
    _metadata,
    sa.Column("receiver", sa.Text, primary_key=True),
    sa.Column("failures", sa.Integer),
    sa.Column("next_attempt_at", _time),
    schema="ops",
)

connections = sa.Table(
    "connections",
    _metadata,
    sa.Column("clever_id", sa.Text, primary_key=True),
    sa.Column("district_id", sa.BigInteger),
    sa.Column("connected_at", _time),
    sa.Column("disconnected_at", _time),
    sa.Column("status_before", sa.Text),
    schema="ops",
)

token_listings = sa.Table(
    "token_listings",
    _metadata,
    sa.Column("is_newest", sa.Boolean, primary_key=True),
    sa.Column("began_at", _time),
    sa.Column("client", sa.Text),
    sa.Column("doubted_since", _time),
    sa.Column("doubt", pg.JSONB(none_as_null=True)),
    schema="ops",
)

purges = sa.Table(
    "purges",
    _metadata,
    sa.Column("purge_id", sa.BigInteger, primary_key=True),
    sa.Column("district_id", sa.BigInteger),
    sa.Column("purged_by", sa.Text),
    sa.Column("purged_at", _time),
    sa.Column("users", sa.Integer),
    sa.Column("deleted_before", sa.Date),
    sa.Column("kind", sa.Text),
    sa.Column("principal", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("counts", pg.JSONB),
    schema="ops",
)

staged_districts = sa.Table(
    "districts",
    _metadata,
    sa.Column("district_id", sa.BigInteger, primary_key=True),
    sa.Column("clever_id", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("state", sa.Text),
    sa.Column("last_sync", _time),
    sa.Column("pulled_at", _time),
    schema="staging",
)

unchanged_districts = sa.Table(
    "settled",
    _metadata,
    sa.Column("district_id", sa.BigInteger, primary_key=True),
    sa.Column("sync_id", sa.BigInteger),
    sa.Column("snapshot", sa.Text),
    sa.Column("state", sa.Text),
    sa.Column("since_sync_id", sa.BigInteger),
    schema="ops",
)

windows = sa.Table(
    "windows",
    _metadata,
    sa.Column("window_id", sa.BigInteger, primary_key=True),
    sa.Column("district_id", sa.BigInteger),
    sa.Column("profile", sa.Text),
    sa.Column("kind", sa.Text),
    sa.Column("first_night", sa.Date),
    sa.Column("last_night", sa.Date),
    sa.Column("limits", pg.JSONB),
    sa.Column("created_by", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("created_at", _time),
    sa.Column("principal", sa.Text),
    sa.Column("cancelled_by", sa.Text),
    sa.Column("cancelled_at", _time),
    schema="ops",
)
