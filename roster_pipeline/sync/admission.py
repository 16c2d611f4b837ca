"""Whether a district may be synced now.

Belongs here: the refusals before anything is pulled, each with its row in `ops.syncs`. Does not belong here: who may request a sync
(`fleet/requests.py`), and the lock (`run.py`).
"""

from sqlalchemy import Connection

from roster_pipeline.database.clock import Clock, require_same_time
from roster_pipeline.districts.agreement import District, UnknownDistrictError, UnusableSettingsError, find_district, inactive
from roster_pipeline.districts.windows import freeze_at
from roster_pipeline.errors import PermanentError
from roster_pipeline.sync import ledger
from roster_pipeline.sync.ledger import Origin


class SkippedError(PermanentError):
    """The district is not synced, and that is no failure: it is not active."""


class FreezeError(SkippedError):
    """The district is not synced because a freeze is on (R14.2)."""


def admit(connection: Connection, reference: str, origin: Origin, clock: Clock, *, during_freeze: bool) -> District:
    """The district, if it may sync. Otherwise a row that says why not, and an error."""
    try:
        district = find_district(connection, reference)
    except UnknownDistrictError as error:
        ledger.refused(connection, None, origin, now=clock(connection), status="failed", message=error.reason, hint=error.hint)
        raise
    except UnusableSettingsError as error:
        ledger.refused(connection, error.district_id, origin, now=clock(connection), status="failed", message=error.reason, hint=error.hint)
        raise
    district_id = district.district_id
    try:
        require_same_time(connection)
    except PermanentError as error:
        ledger.refused(connection, district_id, origin, now=clock(connection), status="failed", message=error.reason, hint=error.hint)
        raise
    if district.status != "active":
        reason, hint = inactive(district)
        ledger.refused(connection, district_id, origin, now=clock(connection), status="skipped", message=reason)
        raise SkippedError(reason, hint=hint, district=district.clever_id)
    freeze = None if during_freeze else freeze_at(connection, district_id, clock(connection))
    if freeze is not None:
        reason, hint = freeze.refusal
        ledger.refused(connection, district_id, origin, now=clock(connection), status="skipped", message=reason)
        raise FreezeError(reason, hint=hint, district=district.clever_id)
    return district
