"""Sending what is in the outbox to every URL of ROSTER_ALERT_URLS (R11.8).

Belongs here: which alerts are due, who has accepted which, when a receiver is tried again. Does not belong here: the words (`messages.py`).

Each receiver gets each alert once, as far as that can be known: acceptance is committed right after it, so an alert is sent again only
where this process dies between the two, or where a receiver accepts after we have stopped waiting. What was not accepted stays open and is
tried again. A receiver's URL and its answers hold secrets: it is told by its position in the list, and stored by a hash.
"""

import hashlib
import logging
import re
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from roster_pipeline.alerts.messages import Alert, Message, compose
from roster_pipeline.database.engine import Database, translate_database_errors
from roster_pipeline.database.lock import delivery_lock
from roster_pipeline.database.tables import APPLIED, alert_deliveries, alert_receivers, alerts, districts, syncs
from roster_pipeline.districts.nights import NIGHTLY_TIMES, due_districts, last_scheduled_at, night_ends_at
from roster_pipeline.settings import Settings

if TYPE_CHECKING:
    from apprise import NotifyBase

log = logging.getLogger(__name__)

# A sensor's tick may take 60 seconds; receivers are waited for side by side.
SEND_SECONDS = 30.0
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)

# Commas also separate the addresses inside a mailto URL: the next URL begins where a scheme follows.
_SEPARATOR = re.compile(r"\s*,\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")


@dataclass(frozen=True)
class Receiver:
    """One URL of ROSTER_ALERT_URLS.

    Attributes:
        position: in the list, from 1: what people are told.
        name: the beginning of the URL's SHA-256: what the database knows it by.
        service: what sends to it; None where the URL cannot be used.
    """

    position: int
    name: str
    service: "NotifyBase | None"


@dataclass(frozen=True)
class DeliveryReport:
    """What one round has done. Receivers are positions in ROSTER_ALERT_URLS.

    Attributes:
        due: alerts that were to be sent, or sent again.
        accepted: receivers that were sent a message and accepted it.
        refused: those that did not.
        unusable: those whose URL cannot be used.
        elsewhere: somebody else is sending at the moment, so nothing was done.
    """

    due: int = 0
    accepted: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    unusable: tuple[int, ...] = ()
    elsewhere: bool = False


def receivers(settings: Settings) -> list[Receiver]:
    """Everybody who is to get alerts, each once, in the order of the list."""
    given = settings.roster_alert_urls.get_secret_value().strip(" ,\n") if settings.roster_alert_urls is not None else ""
    urls = [url.strip(" ,\n") for url in _SEPARATOR.split(given)] if given else []
    return [Receiver(position, _name(url), _service(url)) for position, url in enumerate(urls, start=1) if url not in urls[: position - 1]]


def deliver(database: Database, settings: Settings, *, now: datetime) -> DeliveryReport:
    """Send what is due to everybody who has not accepted it yet. An alert that everybody has accepted is closed.

    Urgent alerts are due at once, the others when the syncs that the schedule started have ended, at the latest when the night is over.
    What is due to a receiver at the same time is one message. Nothing configured: everything stays open.

    Args:
        now: aware UTC.

    Raises:
        RosterError: the database cannot be read or written. What a receiver does, or a wrong URL, raises nothing.
    """
    with translate_database_errors(), database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        with delivery_lock(connection) as is_ours:
            if not is_ours:
                return DeliveryReport(elsewhere=True)
            due = _due(connection, now)
            return _deliver(connection, settings, due, now) if due else DeliveryReport()


def _deliver(connection: Connection, settings: Settings, due: Sequence[Alert], now: datetime) -> DeliveryReport:
    everybody = receivers(settings)
    unusable = [receiver for receiver in everybody if receiver.service is None]
    for receiver in unusable:
        log.warning("the URL at position %s of ROSTER_ALERT_URLS cannot be used", receiver.position)
    accepted, failing = _accepted(connection), _failing(connection)
    sending: dict[Future[bool], tuple[Receiver, list[Alert]]] = {}
    for receiver in everybody:
        owed = [alert for alert in due if (alert.alert_id, receiver.name) not in accepted]
        if receiver.service is not None and owed and failing.get(receiver.name, now) <= now:
            # What a service has refused may have been too long for it: it comes in parts, instead of never.
            in_parts = receiver.name in failing
            sending[_send(receiver.service, compose(owed, settings.roster_ui_url), in_parts=in_parts)] = receiver, owed
    taken = []
    for future in _as_they_end(sending):
        receiver, told = sending[future]
        if future.result():
            _note_acceptance(connection, receiver, told, now)
            taken.append(receiver)
    refused = [receiver for receiver, _ in sending.values() if receiver not in taken]
    for receiver in refused:
        pause = _note_refusal(connection, receiver, now)
        log.warning("the receiver at position %s of ROSTER_ALERT_URLS did not accept; next attempt in %s", receiver.position, pause)
    _close(connection, [receiver.name for receiver in everybody], now)
    return DeliveryReport(len(due), _positions(taken), _positions(refused), _positions(unusable))


def _positions(which: Iterable[Receiver]) -> tuple[int, ...]:
    return tuple(sorted(receiver.position for receiver in which))


# --- what is due ---


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
    until = _told_until(connection, now)
    return [alert for alert in found if alert.is_urgent or alert.created_at <= until]


def _told_until(connection: Connection, now: datetime) -> datetime:
    """Up to when what can wait is due. A nightly moment's syncs are told together when the last of them has ended; what comes after that,
    in the same night, waits for the next such moment or for the morning."""
    until = now
    for moment in sorted(last_scheduled_at(nightly_at, now) for nightly_at in NIGHTLY_TIMES):
        if now < night_ends_at(moment):
            ended_at = _all_ended_at(connection, moment)
            if ended_at is None:
                return moment
            until = ended_at
    return until


def _all_ended_at(connection: Connection, moment: datetime) -> datetime | None:
    """When the last of the districts that were due at a nightly moment had a sync that ended since; None as long as one has not."""
    ended = sa.select(syncs.c.district_id, sa.func.min(syncs.c.finished_at)).where(syncs.c.finished_at >= moment)
    first_end = {row[0]: row[1] for row in connection.execute(ended.group_by(syncs.c.district_id))}
    # Whoever was recorded or resumed since, the schedule has not started.
    due = [each.district_id for each in due_districts(connection, moment) if each.row["updated_at"] <= moment]
    if any(district_id not in first_end for district_id in due):
        return None
    return max((first_end[district_id] for district_id in due), default=moment)


# --- who has accepted what ---


def _accepted(connection: Connection) -> set[tuple[int, str]]:
    query = sa.select(alert_deliveries.c.alert_id, alert_deliveries.c.receiver).join(
        alerts, alerts.c.alert_id == alert_deliveries.c.alert_id
    )
    return {(alert_id, receiver) for alert_id, receiver in connection.execute(query.where(alerts.c.closed_at.is_(None)))}


def _failing(connection: Connection) -> dict[str, datetime]:
    """The receivers that did not accept, with when each is tried again."""
    return {row.receiver: row.next_attempt_at for row in connection.execute(sa.select(alert_receivers))}


def _note_acceptance(connection: Connection, receiver: Receiver, told: Iterable[Alert], now: datetime) -> None:
    rows = [{"alert_id": alert.alert_id, "receiver": receiver.name, "accepted_at": now} for alert in told]
    connection.execute(pg.insert(alert_deliveries).values(rows))
    connection.execute(sa.delete(alert_receivers).where(alert_receivers.c.receiver == receiver.name))


def _note_refusal(connection: Connection, receiver: Receiver, now: datetime) -> timedelta:
    """Each failure in a row doubles the pause before the next attempt."""
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
    # Imported where it is needed: it takes a second, and most rounds send nothing.
    from apprise import Apprise, AppriseAsset

    _silence()
    # Without a time-out of its own it sends in the calling thread, and a receiver that hangs takes no place in a pool of all.
    asset = AppriseAsset(app_id="roster", app_desc="roster pipeline", service_timeout=0)
    return Apprise.instantiate(url, asset=asset)


def _silence() -> None:
    """What Apprise and urllib3 log quotes URLs and answers."""
    logging.getLogger("apprise").disabled = True
    logging.getLogger("urllib3.connectionpool").disabled = True


def _send(service: "NotifyBase", message: Message, *, in_parts: bool) -> "Future[bool]":
    """Send in a thread of its own, which nobody waits for at the end of the process."""
    from apprise import Apprise
    from apprise.common import NotifyFormat, NotifyType, OverflowMode

    if in_parts:
        service.overflow_mode = OverflowMode.SPLIT
    sender = Apprise(service, asset=service.asset)
    future: Future[bool] = Future()

    def send() -> None:
        try:
            result = sender.notify(message.text, title=message.subject, notify_type=NotifyType.WARNING, body_format=NotifyFormat.TEXT)
        except Exception:  # noqa: BLE001 - a service's own mistake, whose text may quote its URL: not accepted, and nothing is printed
            future.set_result(False)
        else:
            future.set_result(bool(result))

    threading.Thread(target=send, name="alert", daemon=True).start()
    return future


def _as_they_end(sending: Iterable["Future[bool]"]) -> Iterable["Future[bool]"]:
    """Each attempt as it ends, as long as we wait for them."""
    try:
        yield from as_completed(list(sending), timeout=SEND_SECONDS)
    except TimeoutError:
        return
