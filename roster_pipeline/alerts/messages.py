"""The words of an alert: what happened, the numbers, what to do next, and where to look. One message for one alert, or for many.

Belongs here: subject and text of every kind, as plain text that mail, chat and webhooks can all show. Does not belong here: what is worth
an alert (whoever causes it) and who gets it (`delivery.py`). There is nothing personal to say: facts are ids and counts (R11.8).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from textwrap import shorten
from typing import Any
from urllib.parse import quote

from roster_pipeline.alerts.outbox import Kind
from roster_pipeline.districts.nights import PACIFIC

# Of one kind in a digest; the rest is counted. Chat services refuse messages beyond about 28 kB.
DIGEST_LINES = 100
_LINE_LENGTH = 160
_JOB_PAGE = "/locations/roster_pipeline/jobs/sync_district/partitions"


@dataclass(frozen=True)
class Alert:
    """One row of `ops.alerts`, and what else is known about it.

    Attributes:
        district: its Clever id.
        run_id: of the Dagster run of the sync.
        synced_since: a later sync of the district has been applied.
    """

    alert_id: int
    kind: Kind
    district: str | None
    district_id: int | None
    sync_id: int | None
    run_id: str | None
    facts: Mapping[str, Any]
    is_urgent: bool
    created_at: datetime
    synced_since: bool


@dataclass(frozen=True)
class Message:
    """What a receiver is sent."""

    subject: str
    text: str


@dataclass(frozen=True)
class _Words:
    """How one kind is told. Templates name `district`, `sync_id` and the facts.

    Attributes:
        one: the sentence of a single alert.
        many: a number of them, in a digest.
        details: the facts in short.
        todo: what to do next.
    """

    one: str
    many: str
    details: Callable[[Mapping[str, Any]], str]
    todo: str


def compose(alerts: Sequence[Alert], ui_url: str) -> Message:
    """One message about everything that is due. `ui_url` is where Dagster's UI is, without a slash at the end."""
    return _single(alerts[0], ui_url) if len(alerts) == 1 else _digest(alerts, ui_url)


def _single(alert: Alert, ui_url: str) -> Message:
    words = KINDS[alert.kind]
    named = _names(alert)
    sentence = words.one.format_map(named)
    details = _details(alert)
    lines = [
        f"{sentence}.",
        *([details] if details else []),
        "",
        f"What to do: {words.todo.format_map(named)}",
        f"Look at: {ui_url}{_page(alert)}",
        "",
        f"Alert {alert.alert_id}, {alert.created_at.astimezone(PACIFIC):%Y-%m-%d %H:%M %Z}.",
    ]
    return Message(f"[roster] {sentence}", "\n".join(lines))


def _digest(alerts: Sequence[Alert], ui_url: str) -> Message:
    groups = {kind: [alert for alert in alerts if alert.kind == kind] for kind in KINDS}
    groups = {kind: group for kind, group in groups.items() if group}
    total = f"{len(alerts):,} alerts: " + ", ".join(f"{KINDS[kind].many} {len(group):,}" for kind, group in groups.items())
    lines = [f"{total}."]
    for kind, group in groups.items():
        words = KINDS[kind]
        lines += ["", f"{words.many.capitalize()}: {len(group):,}"]
        lines += [_line(alert) for alert in group[:DIGEST_LINES]]
        if len(group) > DIGEST_LINES:
            lines.append(f"  ... and {len(group) - DIGEST_LINES:,} more.")
        lines.append(f"What to do: {words.todo.format_map(_Placeholders())}")
    lines += ["", f"Look at: {ui_url}{_JOB_PAGE}"]
    return Message(f"[roster] {total}", "\n".join(lines))


def _line(alert: Alert) -> str:
    sync = f"sync {alert.sync_id}" if alert.sync_id is not None else ""
    return f"  {alert.district or '-':<24}  {sync:<12}  {shorten(_details(alert), _LINE_LENGTH, placeholder=' ...')}".rstrip()


def _details(alert: Alert) -> str:
    details = KINDS[alert.kind].details(alert.facts)
    return f"(Since then a later sync has been applied.) {details}" if alert.kind == "sync_failed" and alert.synced_since else details


def _page(alert: Alert) -> str:
    """Where in Dagster's UI: the run that it is about, else the district's page, else the job's."""
    if run_id := alert.facts.get("run_id") or alert.run_id:
        return f"/runs/{quote(str(run_id))}"
    if alert.district is not None:
        return f"/assets/app/users?view=partitions&partition={quote(alert.district)}"
    return _JOB_PAGE


class _Placeholders(dict[str, str]):
    """What the templates name, in capitals as in `--help` where it is not known or differs."""

    def __missing__(self, name: str) -> str:
        return {"sync_id": "SYNC", "hold_id": "HOLD"}.get(name, name.upper())


def _names(alert: Alert) -> _Placeholders:
    named = {"district": alert.district, "sync_id": alert.sync_id, **alert.facts}
    return _Placeholders({name: str(value) for name, value in named.items() if value is not None})


def _plain(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}" for name, value in facts.items())


def _message_of(facts: Mapping[str, Any]) -> str:
    return str(facts.get("message") or "It left no message.")


def _scopes(facts: Mapping[str, Any]) -> str:
    return "; ".join(_scope(**each) for each in _listed(facts, "scopes"))


def _scope(*, scope: str, licenses: int, used: int, without_seat: int, held: int) -> str:
    where = "the district" if scope == "district" else f"school {scope}"
    return f"{where}: {used:,} students for {licenses:,} licenses, {without_seat:,} of them waiting for a seat, {held:,} more held"


def _rules(facts: Mapping[str, Any]) -> str:
    return "Records by rule: " + ", ".join(f"{rule} {rows:,}" for rule, rows in sorted(facts.get("rules", {}).items())) + "."


def _listed(facts: Mapping[str, Any], name: str) -> Iterable[Mapping[str, Any]]:
    listed: Iterable[Mapping[str, Any]] = facts.get(name, ())
    return listed


# In the order in which a digest tells them.
KINDS: Mapping[Kind, _Words] = {
    "sync_failed": _Words(
        "Sync {sync_id} of district {district} failed",
        "failed syncs",
        _message_of,
        "look the message up in docs/operations.md, which says what it needs; then `roster sync {district}`, or wait for the next night. "
        "Nothing of this sync was written.",
    ),
    "run_failed": _Words(
        "Run {run_id} of job {job} failed and left no word in ops.syncs",
        "failed runs",
        _plain,
        "read the run's last error on its page in Dagster; `roster health` tells what else is wrong.",
    ),
    "hold_opened": _Words(
        "Sync {sync_id} of district {district} holds something for approval ({hold})",
        "new holds",
        _plain,
        "`roster holds {district}` shows it, docs/support.md how to decide. `roster approve {hold_id} --by YOU` lets the next sync do it; "
        "`roster reject {hold_id} --by YOU` keeps it held.",
    ),
    "data_quality": _Words(
        "Sync {sync_id} of district {district} quarantined records",
        "data-quality errors",
        _rules,
        "tell the district, which corrects the records at their source; ops.quarantine has their Clever ids. Until then existing people, "
        "classes and schools behind them stay as they are, and new ones are not made. Rule foreign_district: tell Clever.",
    ),
    "licenses_crossed": _Words(
        "District {district} has more students than licenses",
        "crossed licenses",
        _scopes,
        "`roster district show {district}` shows the licenses and what happens beyond them. More are recorded with `roster district add`. "
        "It is told once, until the number is kept and crossed again.",
    ),
    "district_silent": _Words(
        "District {district} has had no sync for over 26 hours",
        "silent districts",
        _plain,
        "`roster status {district}` shows what became of its last syncs, `roster health` whether anything runs at all.",
    ),
    "disconnected": _Words(
        "District {district} has disconnected: its token is gone from Clever",
        "lost connections",
        _plain,
        "ask the district whether it meant to. Nobody is deactivated, and it is not synced any more; once it has connected again, "
        "`roster district add` makes it active.",
    ),
    "connected": _Words(
        "District {district} has connected",
        "new connections",
        _plain,
        "`roster district add {district} --name NAME --profile PROFILE --domain DOMAIN` records its agreement; it is not synced before.",
    ),
}
