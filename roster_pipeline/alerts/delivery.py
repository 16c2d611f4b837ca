"""Sending the alerts in the outbox to every URL of ROSTER_ALERT_URLS (R11.8).

Belongs here: which alerts are due, which receiver has accepted which alert, and when a receiver is tried again. Does not belong here: the
text (`messages.py`).

Each receiver gets each alert once, except in two cases: this process dies between the acceptance and its commit, or a receiver accepts
after we have stopped waiting. Then the alert is sent again. An alert that a receiver did not accept stays open and is tried again.
A receiver's URL and its answers hold secrets: logs and reports name the receiver by its position in the list, the database by a hash.
"""

import hashlib
import logging
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from roster_pipeline.alerts.messages import Alert, Message, compose
from roster_pipeline.database.clock import is_future, time_of
from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.database.lock import delivery_lock
from roster_pipeline.database.tables import APPLIED, alert_deliveries, alert_receivers, alerts, districts, syncs
from roster_pipeline.districts.nights import NIGHTLY_TIMES, due_districts, last_scheduled_at, night_ends_at, was_active
from roster_pipeline.errors import described
from roster_pipeline.settings import Settings

if TYPE_CHECKING:
    from apprise import NotifyBase

log = logging.getLogger(__name__)

# A sensor's tick may take 60 seconds. All receivers are called at the same time.
SEND_SECONDS = 30.0
# After a sync, the person or the process that waits for it also waits for the receivers.
SEND_AFTER_SYNC_SECONDS = 10.0
# The database is never waited for either: the next round does the rest.
_STATEMENT_TIMEOUT = "5s"
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)

# Commas also separate the addresses inside a mailto URL: the next URL begins where a scheme follows.
_SEPARATOR = re.compile(r"\s*,\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")


@dataclass(frozen=True)
class Receiver:
    """One URL of ROSTER_ALERT_URLS.

    Attributes:
        position: its place in the list, from 1. Messages to people name it.
        name: the beginning of the URL's SHA-256. The database names the receiver by it.
        service: sends to it; None if the URL cannot be used.
    """

    position: int
    name: str
    service: "NotifyBase | None"


@dataclass(frozen=True)
class DeliveryReport:
    """The result of one round. Receivers are given by their position in ROSTER_ALERT_URLS.

    Attributes:
        due: how many alerts were due, those of earlier rounds included.
        accepted: receivers that accepted the message.
        refused: receivers that were sent a message and did not accept it.
        unusable: receivers whose URL cannot be used.
        elsewhere: another process is delivering, so this round did nothing.
    """

    due: int = 0
    accepted: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    unusable: tuple[int, ...] = ()
    elsewhere: bool = False


def receivers(settings: Settings) -> list[Receiver]:
    """Every receiver, in the order of the list. A repeated URL counts once."""
    given = settings.roster_alert_urls.get_secret_value().strip(" ,\n") if settings.roster_alert_urls is not None else ""
    urls = [url.strip(" ,\n") for url in _SEPARATOR.split(given)] if given else []
    return [Receiver(position, _name(url), _service(url)) for position, url in enumerate(urls, start=1) if url not in urls[: position - 1]]


@contextmanager
def delivering(database: Database, settings: Settings) -> Iterator[None]:
    """After the block, tries once to deliver what the syncs in it have caused (R11.8), and changes nothing of how the block ends. What a
    receiver did not accept is tried again by the daemon, or after the next sync."""
    try:
        yield
    except Exception:
        try_to_deliver(database, settings)
        raise
    try_to_deliver(database, settings)


def try_to_deliver(database: Database, settings: Settings) -> None:
    """Deliver once what is due. It takes seconds at most, and a failure is only logged."""
    try:
        deliver(database, settings, now=time_of(database), seconds=SEND_AFTER_SYNC_SECONDS)
    except Exception as error:  # noqa: BLE001 - delivery must not change how a sync has ended
        log.warning("alerts could not be delivered now; the next sync or the daemon tries again: %s", described(error))


def deliver(database: Database, settings: Settings, *, now: datetime, seconds: float | None = None) -> DeliveryReport:
    """Send each due alert to every receiver that has not accepted it yet. Close the alerts that every receiver has accepted.

    An urgent alert is due at once. Any other alert is due when the syncs that the schedule started have ended, and at the latest when the
    night is over. A receiver gets everything that is due in one message. If no receiver is configured, every alert stays open.

    Args:
        now: aware UTC.
        seconds: how long to wait for the receivers; by default SEND_SECONDS.

    Raises:
        RosterError: the database cannot be read or written. A receiver that fails, or a wrong URL, raises nothing.
    """
    with translate_database_errors(), database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql(f"set statement_timeout = '{_STATEMENT_TIMEOUT}'")
        try:
            with delivery_lock(connection) as is_ours:
                if not is_ours:
                    return DeliveryReport(elsewhere=True)
                due = _due(connection, now)
                return _deliver(connection, settings, due, now, seconds or SEND_SECONDS) if due else DeliveryReport()
        finally:
            # The session has a time-out that nobody else expects.
            connection.invalidate()


def _deliver(connection: Connection, settings: Settings, due: Sequence[Alert], now: datetime, seconds: float) -> DeliveryReport:
    everybody = receivers(settings)
    unusable = [receiver for receiver in everybody if receiver.service is None]
    for receiver in unusable:
        log.warning("the URL at position %s of ROSTER_ALERT_URLS cannot be used", receiver.position)
    accepted, failing = _accepted(connection), _failing(connection)
    sending: dict[Future[bool], tuple[Receiver, list[Alert]]] = {}
    for receiver in everybody:
        missing = [alert for alert in due if (alert.alert_id, receiver.name) not in accepted]
        if receiver.service is not None and missing and not _is_pausing(failing.get(receiver.name), now):
            # The service may have refused the last message because it was too long, so the next one is split.
            in_parts = receiver.name in failing
            sending[_send(receiver.service, compose(missing, settings.roster_ui_url), in_parts=in_parts)] = receiver, missing
    accepting = []
    for future in _as_they_end(sending, seconds):
        receiver, sent = sending[future]
        if future.result():
            _record_acceptance(connection, receiver, sent, now)
            accepting.append(receiver)
    refusing = [receiver for receiver, _ in sending.values() if receiver not in accepting]
    for receiver in refusing:
        pause = _record_refusal(connection, receiver, now)
        log.warning("the receiver at position %s of ROSTER_ALERT_URLS did not accept; next attempt in %s", receiver.position, pause)
    _close(connection, [receiver.name for receiver in everybody], now)
    return DeliveryReport(len(due), _positions(accepting), _positions(refusing), _positions(unusable))


def _positions(some: Iterable[Receiver]) -> tuple[int, ...]:
    return tuple(sorted(receiver.position for receiver in some))


# --- which alerts are due ---


def _due(connection: Connection, now: datetime) -> list[Alert]:
    """The open alerts that are due, urgent ones first."""
    later = syncs.alias("later")
    synced_since = sa.exists().where(
        later.c.district_id == alerts.c.district_id, later.c.sync_id > alerts.c.sync_id, later.c.status.in_(APPLIED)
    )
    query = (
        sa.select(
            *(alerts.c[name] for name in ("alert_id", "kind", "district_id", "sync_id", "facts", "is_urgent", "created_at")),
            districts.c.clever_id.label("district"),
            syncs.c.dagster_run_id.label("run_id"),
            synced_since.label("synced_since"),
        )
        .outerjoin(districts, districts.c.district_id == alerts.c.district_id)
        .outerjoin(syncs, syncs.c.sync_id == alerts.c.sync_id)
        .where(alerts.c.closed_at.is_(None))
        .order_by(alerts.c.is_urgent.desc(), alerts.c.alert_id)
    )
    found = [Alert(**row) for row in connection.execute(query).mappings()]
    if all(alert.is_urgent for alert in found):
        return found
    until = _digest_until(connection, now)
    return [alert for alert in found if alert.is_urgent or alert.created_at <= until or is_future(alert.created_at, now)]


def _digest_until(connection: Connection, now: datetime) -> datetime:
    """The alerts that can wait are due if they were created up to this time.

    The syncs of one nightly time are reported together when the last of them has ended. An alert that is created later in the same night
    waits for the next nightly time, or for the morning.
    """
    until = now
    for moment in sorted(last_scheduled_at(nightly_at, now) for nightly_at in NIGHTLY_TIMES):
        if now < night_ends_at(moment):
            ended_at = _all_ended_at(connection, moment, now)
            if ended_at is None:
                return moment
            until = ended_at
    return until


def _all_ended_at(connection: Connection, moment: datetime, now: datetime) -> datetime | None:
    """When every district that was due at this nightly time has had a sync that ended; None if one of them has not."""
    ended = sa.select(syncs.c.district_id, sa.func.min(syncs.c.finished_at)).where(syncs.c.finished_at.between(moment, now))
    first_end = {row[0]: row[1] for row in connection.execute(ended.group_by(syncs.c.district_id))}
    # The schedule did not start districts that were recorded or resumed after it began.
    due = [each.district_id for each in due_districts(connection, moment) if was_active(each, moment, now)]
    if any(district_id not in first_end for district_id in due):
        return None
    return max((first_end[district_id] for district_id in due), default=moment)


# --- which receiver has accepted which alert ---


def _accepted(connection: Connection) -> set[tuple[int, str]]:
    query = sa.select(alert_deliveries.c.alert_id, alert_deliveries.c.receiver).join(
        alerts, alerts.c.alert_id == alert_deliveries.c.alert_id
    )
    return {(alert_id, receiver) for alert_id, receiver in connection.execute(query.where(alerts.c.closed_at.is_(None)))}


def _failing(connection: Connection) -> dict[str, datetime]:
    """The receivers that did not accept the last message, and when each is tried again."""
    return {row.receiver: row.next_attempt_at for row in connection.execute(sa.select(alert_receivers))}


def _is_pausing(until: datetime | None, now: datetime) -> bool:
    """Whether a receiver is not tried yet. A pause that would be longer than the longest was written by a clock that was wrong."""
    return until is not None and now < until <= now + LONGEST_PAUSE


def _record_acceptance(connection: Connection, receiver: Receiver, sent: Iterable[Alert], now: datetime) -> None:
    rows = [{"alert_id": alert.alert_id, "receiver": receiver.name, "accepted_at": now} for alert in sent]
    connection.execute(pg.insert(alert_deliveries).values(rows))
    connection.execute(sa.delete(alert_receivers).where(alert_receivers.c.receiver == receiver.name))


def _record_refusal(connection: Connection, receiver: Receiver, now: datetime) -> timedelta:
    """Returns the pause before the next attempt. Each further failure in a row doubles it, up to an hour."""
    failures = int(
        connection.execute(sa.select(alert_receivers.c.failures).where(alert_receivers.c.receiver == receiver.name)).scalar() or 0
    )
    pause = min(FIRST_PAUSE * (1 << min(failures, 10)), LONGEST_PAUSE)
    values = {"failures": failures + 1, "next_attempt_at": now + pause}
    insert = pg.insert(alert_receivers).values(receiver=receiver.name, **values)
    connection.execute(insert.on_conflict_do_update(index_elements=["receiver"], set_=values))
    return pause


def _close(connection: Connection, names: Sequence[str], now: datetime) -> None:
    """Close what every receiver has accepted. One whose URL cannot be used has not: what it missed is there when the URL is corrected."""
    if not names:
        return
    accepted = (
        sa.select(sa.func.count())
        .where(alert_deliveries.c.alert_id == alerts.c.alert_id, alert_deliveries.c.receiver.in_(names))
        .scalar_subquery()
    )
    connection.execute(sa.update(alerts).where(alerts.c.closed_at.is_(None), accepted == len(names)).values(closed_at=now))


# --- receivers ---


def _name(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def _service(url: str) -> "NotifyBase | None":
    # Imported here, because the import takes a second and most rounds send nothing.
    from apprise import Apprise, AppriseAsset

    _silence()
    # 0: Apprise sends in the calling thread. Otherwise it uses one pool for all services, which a receiver that hangs would fill.
    asset = AppriseAsset(app_id="roster", app_desc="roster pipeline", service_timeout=0)
    return Apprise.instantiate(url, asset=asset)


def _silence() -> None:
    """Apprise and urllib3 log URLs and answers, which hold secrets."""
    logging.getLogger("apprise").disabled = True
    logging.getLogger("urllib3.connectionpool").disabled = True


def _send(service: "NotifyBase", message: Message, *, in_parts: bool) -> "Future[bool]":
    """Send in a daemon thread, so that the process can end without waiting for it."""
    from apprise import Apprise
    from apprise.common import NotifyFormat, NotifyType, OverflowMode

    if in_parts:
        service.overflow_mode = OverflowMode.SPLIT
    sender = Apprise(service, asset=service.asset)
    future: Future[bool] = Future()

    def send() -> None:
        try:
            result = sender.notify(message.text, title=message.subject, notify_type=NotifyType.WARNING, body_format=NotifyFormat.TEXT)
        except Exception:  # noqa: BLE001 - a bug in a service, whose text may quote its URL: counts as refused, and is not printed
            future.set_result(False)
        else:
            future.set_result(bool(result))

    threading.Thread(target=send, name="alert", daemon=True).start()
    return future


def _as_they_end(sending: Iterable["Future[bool]"], seconds: float) -> Iterable["Future[bool]"]:
    """Each attempt as it ends, within so many seconds."""
    try:
        yield from as_completed(list(sending), timeout=seconds)
    except TimeoutError:
        return
