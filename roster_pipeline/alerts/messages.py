"""The text of an alert: what happened, the numbers, what to do next, and where to look. One message for one alert, or for many.

Belongs here: subject and text of every kind, as plain text that mail, chat and webhooks can all show. Does not belong here: what is worth
an alert (`causes.py` and `fleet/freshness.py`, for example), and who gets it (`delivery.py`). Facts are ids and counts, nothing
personal (R11.8).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from textwrap import shorten
from typing import Any
from urllib.parse import quote

from roster_pipeline.alerts.outbox import Kind
from roster_pipeline.districts.nights import PACIFIC

# How many alerts of one kind a digest lists; it counts the rest. Chat services refuse messages beyond about 28 kB.
DIGEST_LINES = 100
_LINE_LENGTH = 160
_JOB_PAGE = "/locations/roster_pipeline/jobs/sync_district/partitions"


@dataclass(frozen=True)
class Alert:
    """One row of `ops.alerts`, with its district and sync.

    Attributes:
        district: the district's Clever id.
        run_id: the Dagster run of the sync.
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
    """What is sent to a receiver."""

    subject: str
    text: str


@dataclass(frozen=True)
class _Texts:
    """The texts of one kind. `one` and `todo` are templates; their fields are `district`, `sync_id` and the facts.

    Attributes:
        one: the sentence of a single alert.
        many: the name of the kind in a digest, in the plural.
        details: writes the facts in one line.
        todo: what to do next.
    """

    one: str
    many: str
    details: Callable[[Mapping[str, Any]], str]
    todo: str


def compose(alerts: Sequence[Alert], ui_url: str) -> Message:
    """One message about all these alerts. `ui_url` is the address of Dagster's UI, without a slash at the end."""
    return _single(alerts[0], ui_url) if len(alerts) == 1 else _digest(alerts, ui_url)


def _single(alert: Alert, ui_url: str) -> Message:
    texts = KINDS[alert.kind]
    fields = _fields(alert)
    sentence = texts.one.format_map(fields)
    details = _details(alert)
    lines = [
        f"{sentence}.",
        *([details] if details else []),
        "",
        f"What to do: {texts.todo.format_map(fields)}",
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
        texts = KINDS[kind]
        lines += ["", f"{texts.many.capitalize()}: {len(group):,}"]
        lines += [_line(alert) for alert in group[:DIGEST_LINES]]
        if len(group) > DIGEST_LINES:
            lines.append(f"  ... and {len(group) - DIGEST_LINES:,} more.")
        lines.append(f"What to do: {texts.todo.format_map(_Placeholders())}")
    lines += ["", f"Look at: {ui_url}{_JOB_PAGE}"]
    return Message(f"[roster] {total}", "\n".join(lines))


def _line(alert: Alert) -> str:
    sync = f"sync {alert.sync_id}" if alert.sync_id is not None else ""
    return f"  {alert.district or '-':<24}  {sync:<12}  {shorten(_details(alert), _LINE_LENGTH, placeholder=' ...')}".rstrip()


def _details(alert: Alert) -> str:
    details = KINDS[alert.kind].details(alert.facts)
    return f"(Since then a later sync has been applied.) {details}" if alert.kind == "sync_failed" and alert.synced_since else details


def _page(alert: Alert) -> str:
    """The page in Dagster's UI: of the run, else of the district, else of the job."""
    if run_id := alert.facts.get("run_id") or alert.run_id:
        return f"/runs/{quote(str(run_id))}"
    if alert.district is not None:
        return f"/assets/app/users?view=partitions&partition={quote(alert.district)}"
    return _JOB_PAGE


class _Placeholders(dict[str, str]):
    """The fields of the templates. A missing one becomes a word in capitals, as in `--help`: in a digest each alert has its own value."""

    def __missing__(self, name: str) -> str:
        return {"sync_id": "SYNC", "hold_id": "HOLD"}.get(name, name.upper())


def _fields(alert: Alert) -> _Placeholders:
    known = {"district": alert.district, "sync_id": alert.sync_id, **alert.facts}
    return _Placeholders({name: str(value) for name, value in known.items() if value is not None})


def _plain(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}" for name, value in facts.items())


def _message_of(facts: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (str(facts.get("message") or "It left no message."), facts.get("hint"))))


def _scopes(facts: Mapping[str, Any]) -> str:
    return "; ".join(_scope(**each) for each in _listed(facts, "scopes"))


def _scope(*, scope: str, licenses: int, used: int, without_seat: int, held: int) -> str:
    where = "the district" if scope == "district" else f"school {scope}"
    return f"{where}: {used:,} students for {licenses:,} licenses, {without_seat:,} of them waiting for a seat, {held:,} more held"


def _rules(facts: Mapping[str, Any]) -> str:
    return "Records by rule: " + ", ".join(f"{rule} {rows:,}" for rule, rows in sorted(facts.get("rules", {}).items())) + "."


def _unusable_tokens(facts: Mapping[str, Any]) -> str:
    districts = facts.get("without_token", ())
    named = f"Without a usable token: {', '.join(districts)}. " if districts else ""
    return f"{named}Entries without an owner: {facts.get('unreadable', 0):,}."


def _reminder(facts: Mapping[str, Any]) -> str:
    return f"Window {facts.get('window_id')} of {facts.get('whose')} ({facts.get('window')}) {facts.get('what')} on {facts.get('day')}."


def _listed(facts: Mapping[str, Any], name: str) -> Iterable[Mapping[str, Any]]:
    listed: Iterable[Mapping[str, Any]] = facts.get(name, ())
    return listed


# In the order of a digest.
KINDS: Mapping[Kind, _Texts] = {
    "sync_failed": _Texts(
        "Sync {sync_id} of district {district} failed",
        "failed syncs",
        _message_of,
        "what the message says; then `roster sync {district}`, or wait for the next night. Nothing of this sync was written.",
    ),
    "run_failed": _Texts(
        "Run {run_id} of job {job} failed and did not record a sync in ops.syncs",
        "failed runs",
        _plain,
        "read the run's last error on its page in Dagster; `roster health` says what else is wrong.",
    ),
    "hold_opened": _Texts(
        "Sync {sync_id} of district {district} holds something for approval ({hold})",
        "new holds",
        _plain,
        "`roster holds {district}` shows it, and docs/support.md says how to decide. After `roster approve {hold_id} --by YOU` the next "
        "sync applies it; `roster reject {hold_id} --by YOU` keeps it held.",
    ),
    "data_quality": _Texts(
        "Sync {sync_id} of district {district} quarantined records",
        "data-quality errors",
        _rules,
        "ask the district to correct the records at their source; ops.quarantine has their Clever ids. Until then the people, classes and "
        "schools behind these records are left unchanged, and no new ones are created. Rule foreign_district: report it to Clever.",
    ),
    "licenses_crossed": _Texts(
        "District {district} has more students than licenses",
        "crossed licenses",
        _scopes,
        "`roster district show {district}` shows the licenses and what happens to students beyond them. Record more licenses with "
        "`roster district add`. The next alert comes only after the district is back within its licenses and crosses them again.",
    ),
    "district_silent": _Texts(
        "District {district} has had no sync for over 26 hours",
        "silent districts",
        _plain,
        "`roster status {district}` shows how its last syncs ended, `roster health` whether anything runs at all.",
    ),
    "disconnected": _Texts(
        "District {district} has disconnected: Clever no longer lists its token",
        "lost connections",
        _plain,
        "ask the district whether it meant to. Nobody is deactivated, and the district no longer syncs. When it connects again, it has the "
        "status that it had, without anybody's help: `roster district show {district}`.",
    ),
    "connected": _Texts(
        "District {district} has connected",
        "new connections",
        _plain,
        "if its status is requested, record its agreement with `roster district add {district} --name NAME --profile PROFILE --domain "
        "DOMAIN`; until then it does not sync. With another status it was connected before, and has it again: there is nothing to do.",
    ),
    "connections_doubtful": _Texts(
        "The list of connected districts is not believed",
        "doubtful lists of connections",
        lambda facts: str(facts.get("reason", "")),
        "nothing was changed. Check CLEVER_CLIENT_ID and what Clever's dashboard shows. A fault at Clever passes by itself; if the list is "
        "right, `roster connections accept --by YOU` applies it.",
    ),
    "tokens_unusable": _Texts(
        "Clever's list of tokens has entries that cannot be used",
        "lists of tokens with unusable entries",
        _unusable_tokens,
        "`roster status` shows the districts. Syncs of those without a usable token fail, all others go on. While an entry has no owner, no"
        " district counts as disconnected. A district that connects the application again at Clever gets a new token.",
    ),
    "district_in_error": _Texts(
        "Clever itself reports an error in the data of district {district}",
        "districts in error at Clever",
        _plain,
        "ask the district or Clever what is wrong with its own load: until it is fixed, Clever goes on showing old data. The sync was "
        "applied: `roster status {district}`.",
    ),
    "window": _Texts(
        "Window {window_id} of {whose} ({window}) {what} at noon on {day} in Los Angeles",
        "windows that begin or end",
        _reminder,
        "`roster window list` says why. Before a rollover, `roster rollover preview {district}` says what would be held. If "
        "the plan has changed, `roster window cancel {window_id} --by YOU` cancels it, and `roster window add` adds another one.",
    ),
}
