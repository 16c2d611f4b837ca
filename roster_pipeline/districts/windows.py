"""Windows: spans of nights that are agreed in advance (R14.1). In a freeze nothing syncs; in additions only nothing is taken away; in a
rollover some brakes have other limits.

Belongs here: adding, listing and cancelling windows, which one is on, and the limits of a rollover. Does not belong here: what a sync does
in one (`sync/`, `dbt_like_sql/reconcile/`), and the alerts about windows (`fleet/windows.py`).

A night lasts from noon of its day to noon of the next, in Los Angeles, so its date says which window it is in. The database decides which
window is on (`ops.window_at`), and refuses two at a time and any change but a cancellation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from roster_pipeline.brake_kinds import MAY_LOOSEN, ROLLOVER
from roster_pipeline.database.audit import os_principal, record_act
from roster_pipeline.database.tables import districts, windows
from roster_pipeline.districts.agreement import LATEST_START
from roster_pipeline.districts.nights import night_of, noon_of
from roster_pipeline.errors import PermanentError, UsageError
from roster_pipeline.profiles import Brakes, brakes_with, require_profile
from roster_pipeline.visible import visible

Kind = Literal["freeze", "additions_only", "rollover"]
# The longest window of each kind, in nights.
MOST_NIGHTS: Mapping[Kind, int] = {"freeze": 92, "additions_only": 92, "rollover": 31}
LONGEST_BY, LONGEST_REASON = 200, 2_000


@dataclass(frozen=True)
class Window:
    """One row of `ops.windows`.

    Attributes:
        district_id: whose window it is; None: `profile` says it.
        limits: the limits that it names; the others are those of `brake_kinds.ROLLOVER`.
    """

    window_id: int
    district_id: int | None
    profile: str | None
    kind: Kind
    first_night: date
    last_night: date
    limits: Mapping[str, float]
    created_by: str
    reason: str
    created_at: datetime
    cancelled_by: str | None
    cancelled_at: datetime | None

    @property
    def begins_at(self) -> datetime:
        """Noon of its first night, UTC."""
        return noon_of(self.first_night)

    @property
    def ends_at(self) -> datetime:
        """Noon after its last night, UTC."""
        return noon_of(self.last_night + timedelta(days=1))

    @property
    def span(self) -> str:
        """Its nights, for a sentence."""
        if self.first_night == self.last_night:
            return f"the night of {self.first_night}"
        return f"the nights of {self.first_night} to {self.last_night}"

    @property
    def refusal(self) -> tuple[str, str]:
        """Why a freeze lets nothing sync, and what to do about it (R14.2)."""
        why = visible(self.reason).rstrip(".")
        return (
            f"A freeze is on through the night of {self.last_night} (window {self.window_id}): {why}.",
            f"`roster sync DISTRICT --during-freeze --by WHO --reason TEXT` syncs all the same; `roster window cancel {self.window_id}` "
            "ends the freeze.",
        )

    @property
    def facts(self) -> dict[str, Any]:
        """The window in `ops.syncs.counts`: ids and days only."""
        return {"window_id": self.window_id, "kind": self.kind, "last_night": self.last_night.isoformat()}

    def brakes(self, own: Brakes) -> Brakes:
        """The limits in this window (R14.4). What it names counts; a default never makes a limit tighter than the district's own."""
        if self.kind != "rollover":
            return own
        defaults = {setting: max(value, getattr(own, setting)) for setting, value in ROLLOVER.items()}
        return brakes_with(own, {**defaults, **self.limits})


@dataclass(frozen=True)
class NewWindow:
    """A window to add. One of `district_id` and `profile` is set."""

    district_id: int | None
    profile: str | None
    kind: Kind
    first_night: date
    last_night: date
    limits: Mapping[str, float]


def add_window(connection: Connection, new: NewWindow, *, by: str, reason: str, now: datetime) -> Window:
    """Add a window, with its row in `ops.audit`, in the caller's transaction.

    Raises:
        UsageError: a day or a limit is not valid.
        PermanentError: another window of the same district or profile has one of its nights, or all its nights are over.
    """
    _check(new, by=by, reason=reason, now=now)
    values = {
        "district_id": new.district_id,
        "profile": new.profile,
        "kind": new.kind,
        "first_night": new.first_night,
        "last_night": new.last_night,
        "limits": dict(new.limits),
        "created_by": by,
        "reason": reason,
        "created_at": now,
        "principal": os_principal(),
    }
    try:
        # The constraint decides, because two people can add a window at once. The other one's row is visible when it refuses.
        with connection.begin_nested():
            row = connection.execute(sa.insert(windows).values(values).returning(windows)).mappings().one()
    except sa.exc.IntegrityError as error:
        if getattr(error.orig, "sqlstate", None) != "23P01":
            raise
        raise _overlap(_overlapping(connection, new)[-1], now) from None
    window = _window(row)
    facts = {key: value.isoformat() if isinstance(value, date) else value for key, value in _said(window).items()}
    record_act(
        connection,
        "window_add",
        given_name=by,
        reason=reason,
        district_id=new.district_id,
        subject=f"window {window.window_id}",
        facts=facts,
    )
    return window


def cancel_window(connection: Connection, window_id: int, *, by: str, reason: str | None, now: datetime) -> Window:
    """Cancel a window that is on or still to come; after that it counts no more. Its row in `ops.audit` is in the caller's transaction.

    Raises:
        PermanentError: there is no such window, it is over, or it was cancelled already.
    """
    ours = windows.c.window_id == window_id
    row = connection.execute(sa.select(windows).where(ours).with_for_update()).mappings().one_or_none()
    if row is None:
        raise PermanentError(f"There is no window {window_id}.", hint="`roster window list --all` shows every window.")
    window = _window(row)
    if window.cancelled_at is not None:
        raise PermanentError(f"Window {window_id} was cancelled at {window.cancelled_at:%Y-%m-%d %H:%M} UTC already.")
    if now >= window.ends_at:
        raise PermanentError(f"Window {window_id} is over: its last night was that of {window.last_night}.")
    cancelling = sa.update(windows).where(ours).values(cancelled_by=by, cancelled_at=now).returning(windows)
    window = _window(connection.execute(cancelling).mappings().one())
    record_act(
        connection,
        "window_cancel",
        given_name=by,
        reason=reason,
        district_id=window.district_id,
        subject=f"window {window_id}",
        facts={"kind": window.kind, "was_on": window.begins_at <= now},
    )
    return window


def window_at(connection: Connection, district_id: int, now: datetime) -> Window | None:
    """The window of a district that is on; its own goes before its profile's."""
    query = sa.text("select * from ops.window_at(:district_id, :now)")
    row = connection.execute(query, {"district_id": district_id, "now": now}).mappings().one_or_none()
    return _window(row) if row is not None else None


def windows_at(connection: Connection, now: datetime) -> dict[int, Window]:
    """The window that is on in each district, by district id; districts without one are left out."""
    query = sa.text(
        "select districts.district_id as of_district, windows.* from app.districts as districts"
        " cross join lateral ops.window_at(districts.district_id, :now) as windows"
    )
    return {row["of_district"]: _window(row) for row in connection.execute(query, {"now": now}).mappings()}


def freeze_at(connection: Connection, district_id: int, now: datetime) -> Window | None:
    """The freeze that is on in a district."""
    window = window_at(connection, district_id, now)
    return window if window is not None and window.kind == "freeze" else None


def record_exception(
    connection: Connection, district_id: int, *, given_name: str | None, reason: str | None, principal: str | None, now: datetime
) -> None:
    """Record in `ops.audit` that somebody syncs a district in spite of a freeze, if one is on. The arguments are those of `record_act`."""
    if (freeze := freeze_at(connection, district_id, now)) is not None:
        record_act(
            connection,
            "sync_during_freeze",
            given_name=given_name,
            reason=reason,
            district_id=district_id,
            subject=f"window {freeze.window_id}",
            principal=principal,
        )


def freezes_at(connection: Connection, now: datetime) -> frozenset[int]:
    """The districts in which a freeze is on."""
    return frozenset(district_id for district_id, window in windows_at(connection, now).items() if window.kind == "freeze")


def freezes_ended_at(connection: Connection, now: datetime) -> dict[int, datetime]:
    """When the last freeze of each district ended or was cancelled, up to now; only freezes that were on then."""
    return {row.district_id: row.ended_at for row in connection.execute(_THAWED, {"now": now})}


# A moment before the end, the freeze was the window that was on: not cancelled, and no other one before it.
_THAWED = sa.text("""
    select districts.district_id, max(ending.ended_at) as ended_at
    from app.districts as districts
    inner join ops.windows as windows on windows.district_id = districts.district_id or windows.profile = districts.profile
    cross join lateral (
        select least(
            (cast(windows.last_night + 1 as timestamp) + interval '12 hours') at time zone 'America/Los_Angeles', windows.cancelled_at
        ) as ended_at
    ) as ending
    where
        windows.kind = 'freeze'
        and ending.ended_at <= :now
        and exists (
            select 1
            from ops.window_at(districts.district_id, ending.ended_at - interval '1 microsecond') as was_on
            where was_on.window_id = windows.window_id
        )
    group by districts.district_id
""")


def current_windows(connection: Connection, *, district_id: int | None = None, now: datetime | None = None) -> list[Window]:
    """Windows in the order of their nights.

    Args:
        district_id: only those of this district and of its profile.
        now: only those that are on or still to come.
    """
    query = sa.select(windows).order_by(windows.c.first_night, windows.c.window_id)
    if district_id is not None:
        profile = sa.select(districts.c.profile).where(districts.c.district_id == district_id).scalar_subquery()
        query = query.where(sa.or_(windows.c.district_id == district_id, windows.c.profile == profile))
    if now is not None:
        query = query.where(windows.c.last_night >= night_of(now), windows.c.cancelled_at.is_(None))
    return [_window(row) for row in connection.execute(query).mappings()]


def checked_limits(assignments: Mapping[str, Any]) -> dict[str, float]:
    """The limits of a rollover window, by setting; `brakes.` in front of a key may be left out.

    Raises:
        UsageError: an unknown key, one that no window loosens, or a value out of its range.
    """
    limits = {key.removeprefix("brakes."): value for key, value in assignments.items()}
    if other := [key for key in limits if key in Brakes.model_fields and key not in MAY_LOOSEN]:
        raise UsageError(
            f"--limit {', '.join(other)}: no window loosens this limit.", hint=f"A rollover window has: {', '.join(MAY_LOOSEN)}."
        )
    if unknown := [key for key in limits if key not in MAY_LOOSEN]:
        raise UsageError(f"--limit {', '.join(unknown)}: there is no such limit.", hint=f"A rollover window has: {', '.join(MAY_LOOSEN)}.")
    checked = brakes_with(Brakes(), limits)
    return {key: getattr(checked, key) for key in limits}


def _check(new: NewWindow, *, by: str, reason: str, now: datetime) -> None:
    """Raises if the window is not valid. The database checks the same, without these sentences."""
    if new.profile is not None:
        require_profile(new.profile)
    if not by.strip() or len(by) > LONGEST_BY:
        raise UsageError(f"--by must be a text of up to {LONGEST_BY} characters.")
    if not reason.strip() or len(reason) > LONGEST_REASON:
        raise UsageError(f"--reason must be a text of up to {LONGEST_REASON:,} characters.")
    if new.last_night < new.first_night:
        raise UsageError(f"The window ends ({new.last_night}) before it begins ({new.first_night}).", hint="--to is its last night.")
    tonight = night_of(now)
    if new.last_night < tonight:
        raise PermanentError(
            f"The night of {new.last_night} is over: a window cannot be wholly in the past.", hint=f"It is the night of {tonight}."
        )
    if new.last_night > tonight + LATEST_START:
        raise UsageError(f"--to must be a night up to {tonight + LATEST_START}.")
    nights = (new.last_night - new.first_night).days + 1
    if nights > MOST_NIGHTS[new.kind]:
        raise UsageError(f"A {new.kind} window has at most {MOST_NIGHTS[new.kind]} nights; this one would have {nights}.")
    if new.limits and new.kind != "rollover":
        raise UsageError("Only a rollover window has limits.", hint="Leave --limit out.")


def _overlap(other: Window, now: datetime) -> PermanentError:
    if now < other.ends_at:
        hint = f"`roster window cancel {other.window_id}` ends it. A window is never changed."
    else:
        hint = f"It is over: --from {other.last_night + timedelta(days=1)} begins after it."
    return PermanentError(f"These nights overlap those of window {other.window_id} ({other.kind}, {other.span}): one at a time.", hint=hint)


def _overlapping(connection: Connection, new: NewWindow) -> Sequence[Window]:
    whose = windows.c.district_id == new.district_id if new.district_id is not None else windows.c.profile == new.profile
    query = sa.select(windows).where(
        whose, windows.c.cancelled_at.is_(None), windows.c.first_night <= new.last_night, windows.c.last_night >= new.first_night
    )
    return [_window(row) for row in connection.execute(query.order_by(windows.c.first_night)).mappings()]


def _said(window: Window) -> dict[str, Any]:
    return {
        "kind": window.kind,
        "profile": window.profile,
        "first_night": window.first_night,
        "last_night": window.last_night,
        "limits": dict(window.limits),
    }


def _window(row: RowMapping) -> Window:
    return Window(**{name: row[name] for name in Window.__dataclass_fields__})
