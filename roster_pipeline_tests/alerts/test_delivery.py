"""R11.8: each alert in the outbox reaches each receiver once, whatever the other receivers do."""

import logging
import threading
from datetime import timedelta

import pytest

from roster_pipeline.alerts import delivery
from roster_pipeline.alerts.delivery import DeliveryReport, receivers
from roster_pipeline.errors import RosterError
from roster_pipeline.settings import Settings
from roster_pipeline_tests.alerts.outbox import MIDNIGHT, MORNING, NINE, NOON, Outbox
from roster_pipeline_tests.alerts.receivers import SECRET, Mailbox, Webhook

SERVERS = ("mail.log", "mail.debug", "asyncio")  # what our own mail server logs
MINUTE = timedelta(minutes=1)


def test_each_alert_reaches_each_receiver_once(outbox: Outbox, mail: Mailbox, hook: Webhook) -> None:
    """R11.8: mail and webhook get the same text. Then the alert is closed, and the next round has nothing to do."""
    outbox.urls = [mail.url("a@example.org,b@example.org"), hook.url()]
    sync_id = outbox.failed(outbox.district(), NOON, urgent=True)
    report = outbox.deliver(NOON)
    assert report == DeliveryReport(due=1, accepted=(1, 2))
    assert len(hook.received) == 1
    assert mail.received == hook.received * 2, "a mail each"
    assert mail.recipients == ["a@example.org", "b@example.org"]
    [(subject, body)] = hook.received
    assert f"Sync {sync_id} of district" in subject
    assert "Clever cannot be reached." in body
    assert outbox.open == 0
    assert outbox.value("select closed_at from ops.alerts") == NOON
    assert outbox.deliver(NOON + MINUTE) == DeliveryReport()
    assert (hook.attempts, len(mail.received)) == (1, 2)


def test_delivery_leaves_the_sync_alone(outbox: Outbox, hook: Webhook) -> None:
    """R11.8: delivery never changes the row of the sync, whether a receiver accepts or not."""
    outbox.urls = [hook.url()]
    hook.answers = [500]
    outbox.failed(outbox.district(), NOON, urgent=True)
    before = outbox.rows("select xmin::text, * from ops.syncs")
    outbox.deliver(NOON)
    outbox.deliver(NOON + MINUTE)
    assert len(hook.received) == 1
    assert outbox.rows("select xmin::text, * from ops.syncs") == before


def test_a_receiver_that_refuses_is_tried_later_and_blocks_nobody(outbox: Outbox, hook: Webhook, other: Webhook) -> None:
    """R11.8: it is tried after 1, 2, 4 ... minutes, at most an hour. The other receiver gets the message at once, and only once."""
    outbox.urls = [hook.url(), other.url()]
    hook.answers = [503] * 8
    outbox.record(NOON)
    at = NOON
    for minutes in (1, 2, 4, 8, 16, 32, 60, 60):
        report = outbox.deliver(at)
        assert report.refused == (1,)
        attempts = hook.attempts
        assert not outbox.deliver(at + minutes * MINUTE - timedelta(seconds=1)).refused
        assert hook.attempts == attempts, "no attempt before the pause is over"
        at += minutes * MINUTE
        assert outbox.open == 1
    outbox.record(at)
    assert outbox.deliver(at).accepted == (1, 2)
    assert [subject for subject, _ in hook.received] == ["[roster] 2 alerts: new holds 2"], "everything it missed, in one message"
    assert len(other.received) == 2
    assert outbox.open == 0
    assert outbox.rows("select * from ops.alert_receivers") == [], "the next failure begins with a minute again"


def test_a_mail_server_that_refuses_for_a_while(outbox: Outbox, mail: Mailbox) -> None:
    """R11.8: a temporary refusal in SMTP is tried again, like any other refusal."""
    outbox.urls = [mail.url()]
    mail.refusing = True
    outbox.record(NOON)
    assert outbox.deliver(NOON).refused == (1,)
    mail.refusing = False
    assert outbox.deliver(NOON + MINUTE).accepted == (1,)
    assert len(mail.received) == 1


def test_a_refused_message_is_sent_again_in_parts(outbox: Outbox, hook: Webhook) -> None:
    """R11.8: it may have been too long. Apprise splits it into parts that fit the service, so it is not refused for ever."""
    outbox.urls = [hook.url()]
    hook.answers = [413]
    district_id = outbox.district()
    for _ in range(120):
        outbox.record(NOON, facts={"rules": {"r " * 100: 1}}, kind="data_quality", district_id=district_id)
        outbox.record(NOON, facts={"message": "m " * 100}, kind="sync_failed", district_id=district_id)
    assert outbox.deliver(NOON).refused == (1,)
    assert outbox.deliver(NOON + MINUTE).accepted == (1,)
    assert len(hook.received) == 2
    assert outbox.open == 0


def test_a_receiver_that_cannot_be_reached(outbox: Outbox, hook: Webhook) -> None:
    """R11.8: nothing listens at the first two URLs; the third receiver gets the alert."""
    outbox.urls = ["json://127.0.0.1:9/", "mailto://127.0.0.1:9?from=a@example.org&to=b@example.org", hook.url()]
    outbox.record(NOON)
    report = outbox.deliver(NOON)
    assert (report.accepted, report.refused) == ((3,), (1, 2))


@pytest.mark.parametrize("patience", ["rto=0.3", "rto=60"])
def test_a_receiver_that_never_answers(
    outbox: Outbox, hook: Webhook, other: Webhook, patience: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R11.8: the time-out of its URL ends the attempt, or else ours does. The other receiver does not wait for it."""
    monkeypatch.setattr(delivery, "SEND_SECONDS", 2.0)
    outbox.urls = [hook.url(patience), other.url()]
    hook.gate.clear()
    outbox.record(NOON)
    report = outbox.deliver(NOON)
    assert (report.accepted, report.refused) == ((2,), (1,))
    assert (hook.attempts, len(other.received), outbox.open) == (1, 1, 1)


def test_two_deliverers_at_once_send_once(outbox: Outbox, hook: Webhook) -> None:
    """R11.8: the second one does nothing while the first one sends."""
    outbox.urls = [hook.url("rto=20")]
    hook.gate.clear()
    outbox.record(NOON)
    first: list[DeliveryReport] = []
    thread = threading.Thread(target=lambda: first.append(outbox.deliver(NOON)))
    thread.start()
    while not hook.attempts:
        threading.Event().wait(0.01)
    assert outbox.deliver(NOON) == DeliveryReport(elsewhere=True)
    hook.gate.set()
    thread.join()
    assert first[0].accepted == (1,)
    assert outbox.deliver(NOON) == DeliveryReport()
    assert hook.attempts == 1


def test_an_acceptance_that_is_not_recorded_is_sent_again(outbox: Outbox, hook: Webhook) -> None:
    """R11.8: delivery is at least once if the process or the database dies between the acceptance and its commit."""
    outbox.urls = [hook.url()]
    outbox.record(NOON)
    outbox.execute("alter table ops.alert_deliveries add constraint full_disk check (receiver = '') not valid")
    with pytest.raises(RosterError):
        outbox.deliver(NOON)
    assert outbox.open == 1
    outbox.execute("alter table ops.alert_deliveries drop constraint full_disk")
    assert outbox.deliver(NOON).accepted == (1,)
    assert len(hook.received) == 2


def test_a_url_added_later_gets_the_open_alerts(outbox: Outbox, hook: Webhook, other: Webhook) -> None:
    """R11.8: it does not get those that every receiver had accepted before."""
    outbox.urls = [hook.url()]
    outbox.record(NOON)
    outbox.deliver(NOON)
    hook.answers = [500]
    outbox.record(NOON)
    outbox.deliver(NOON)
    outbox.urls.append(other.url())
    outbox.deliver(NOON + MINUTE)
    assert len(other.received) == 1
    assert "hold id 1" in other.received[0][1]
    assert len(hook.received) == 2
    assert outbox.open == 0


def test_a_removed_url_keeps_no_alert_open(outbox: Outbox, hook: Webhook, other: Webhook) -> None:
    """R11.8: an alert is closed when every receiver that is in the list now has accepted it."""
    outbox.urls = [hook.url(), other.url()]
    hook.answers = [500]
    outbox.record(NOON)
    outbox.deliver(NOON)
    assert outbox.open == 1
    outbox.urls = [other.url()]
    outbox.deliver(NOON)
    assert outbox.open == 0
    assert len(other.received) == 1


def test_without_receivers_alerts_stay_open(outbox: Outbox, hook: Webhook) -> None:
    """R11.8: the first receiver that is configured gets them."""
    outbox.record(NOON)
    assert outbox.deliver(NOON) == DeliveryReport(due=1)
    assert outbox.open == 1
    outbox.urls = [hook.url()]
    outbox.deliver(NOON)
    assert (outbox.open, len(hook.received)) == (0, 1)


@pytest.mark.parametrize("wrong", [f"{SECRET}", f"nosuch://{SECRET}", f"json://{SECRET}:port", f"json://[::1{SECRET}", f"slack://{SECRET}"])
def test_a_wrong_url_is_named_by_its_position(outbox: Outbox, hook: Webhook, wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    """R11.8, SPEC 12: never by its text. The other receivers get the alert, and this one gets it when its URL is corrected."""
    caplog.set_level(logging.DEBUG)
    outbox.urls = [wrong, hook.url()]
    outbox.record(NOON)
    report = outbox.deliver(NOON)
    assert (report.accepted, report.unusable) == ((2,), (1,))
    assert "position 1 of ROSTER_ALERT_URLS" in caplog.text
    assert SECRET not in caplog.text
    assert outbox.open == 1
    outbox.urls[0] = hook.url("corrected=yes")
    outbox.deliver(NOON)
    assert (outbox.open, len(hook.received)) == (0, 2)


def test_the_list_of_urls() -> None:
    """SPEC 2: comma separated. Commas inside a URL, spaces, empty places and repeated URLs do no harm."""

    def positions(urls: str | None) -> list[tuple[int, bool]]:
        found = receivers(Settings(_env_file=None, roster_alert_urls=urls))
        assert len({each.name for each in found}) == len(found)
        return [(each.position, each.service is not None) for each in found]

    assert positions(None) == positions("") == positions(" , ") == []
    assert positions("json://127.0.0.1/a,json://127.0.0.1/b") == [(1, True), (2, True)]
    assert positions(" json://127.0.0.1/a ,, \n json://127.0.0.1/a,mailto://h?from=a@example.org&to=b@example.org,c@example.org,") == [
        (1, True),
        (3, True),
    ]
    assert positions("typing error, json://127.0.0.1") == [(1, False), (2, True)]


def test_nothing_secret_or_personal_is_logged_or_stored(
    outbox: Outbox, hook: Webhook, mail: Mailbox, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """SPEC 12: neither a URL nor a receiver's answer, whether it accepts or not; printed settings show stars."""
    caplog.set_level(1)
    outbox.urls = [hook.url(), mail.url(), hook.url("rto=0.3&other=1")]
    mail.refusing = True
    hook.answers = [200, 500]
    outbox.record(NOON)
    outbox.deliver(NOON)
    printed, logged = (
        capfd.readouterr(),
        "".join(f"{each.getMessage()} {each.exc_text}" for each in caplog.records if each.name not in SERVERS),
    )
    stored = str([outbox.rows(f"select * from ops.{table}") for table in ("alerts", "alert_deliveries", "alert_receivers")])
    for place in (logged, printed.out, printed.err, stored, repr(outbox.settings)):
        assert SECRET not in place
        assert "127.0.0.1" not in place
        assert "oncall@example.org" not in place
    assert logged.count("did not accept") == 2


# --- alerts that can wait for a digest ---


def test_a_bad_night_is_one_message(outbox: Outbox, hook: Webhook, mail: Mailbox) -> None:
    """R11.8: for a hundred failed districts each receiver gets one digest, when the last of them has ended."""
    outbox.urls = [hook.url(), mail.url()]
    districts = [outbox.district() for _ in range(100)]
    for minutes, district_id in enumerate(districts, start=1):
        outbox.failed(district_id, NINE + minutes * timedelta(seconds=20))
        if minutes in (1, 50, 99):
            assert outbox.deliver(NINE + minutes * timedelta(seconds=20)).due == 0
    report = outbox.deliver(NINE + timedelta(hours=1))
    assert (report.due, report.accepted) == (100, (1, 2))
    [(subject, body)] = hook.received
    assert subject == "[roster] 100 alerts: failed syncs 100"
    assert body.splitlines()[0] == "100 alerts: failed syncs 100."
    assert all(f"  d{district_id} " in body for district_id in districts)
    assert mail.received == hook.received
    assert outbox.open == 0
    assert outbox.deliver(MORNING).due == 0


def test_an_urgent_alert_does_not_wait_for_the_digest(outbox: Outbox, hook: Webhook) -> None:
    """R11.8: an urgent alert is sent at once; the others when the syncs of the night have ended."""
    outbox.urls = [hook.url()]
    one, two = outbox.district(), outbox.district()
    outbox.failed(one, NINE + MINUTE)
    outbox.record(NINE + MINUTE, kind="disconnected", facts={}, district_id=two)
    assert outbox.deliver(NINE + MINUTE).due == 1
    assert [subject for subject, _ in hook.received] == [f"[roster] District d{two} has disconnected: Clever no longer lists its token"]
    outbox.sync(two, NINE + 2 * MINUTE, "successful")
    assert outbox.deliver(NINE + 3 * MINUTE).due == 1
    assert len(hook.received) == 2
    assert outbox.open == 0


def test_the_digest_waits_for_every_due_district(outbox: Outbox) -> None:
    """R11.8: it waits for a district that has not started or is running, until the morning at most. A sync may end with any status."""
    failed, late = outbox.district(), outbox.district()
    outbox.sync(late, NINE - MINUTE, "successful")
    outbox.failed(failed, NINE + MINUTE)
    for at in (NINE + MINUTE, NINE + timedelta(hours=2), MORNING - MINUTE):
        assert outbox.deliver(at).due == 0
    assert outbox.deliver(MORNING).due == 1
    sync_id = outbox.sync(late, None, "processing")
    assert outbox.deliver(NINE + 2 * MINUTE).due == 0
    ended = "update ops.syncs set status = 'skipped', finished_at = :at where sync_id = :id"
    outbox.execute(ended, at=NINE + 3 * MINUTE, id=sync_id)
    assert outbox.deliver(NINE + 3 * MINUTE).due == 1


def test_the_digest_does_not_wait_for_districts_that_are_not_due(outbox: Outbox) -> None:
    """R11.1: they are paused, start later, have the other nightly time, or were recorded after the schedule began."""
    failed, paused, later = (outbox.district() for _ in range(3))
    outbox.district("twig_science")
    outbox.district(recorded_at=NINE + MINUTE)
    outbox.execute("update app.districts set status = 'paused' where district_id = :id", id=paused)
    outbox.execute("update app.districts set start_date = '2026-01-15' where district_id = :id", id=later)
    outbox.failed(failed, NINE + MINUTE)
    assert outbox.deliver(NINE + 2 * MINUTE).due == 1


def test_each_nightly_time_has_its_own_digest(outbox: Outbox, hook: Webhook) -> None:
    """R11.8: the syncs of 21:00 are reported when they have ended, and so are those of 00:00. A failure after that waits for the next of
    the two digests, or for the morning."""
    outbox.urls = [hook.url()]
    typing, twig = outbox.district(), outbox.district("twig_science")
    outbox.failed(typing, NINE + MINUTE)
    outbox.deliver(NINE + 2 * MINUTE)
    assert len(hook.received) == 1
    outbox.failed(typing, NINE + 60 * MINUTE)
    assert outbox.deliver(NINE + 61 * MINUTE).due == 0
    outbox.failed(twig, MIDNIGHT + MINUTE)
    assert outbox.deliver(MIDNIGHT + 2 * MINUTE).due == 2
    outbox.failed(typing, MIDNIGHT + 60 * MINUTE)
    assert outbox.deliver(MIDNIGHT + 61 * MINUTE).due == 0
    assert outbox.deliver(MORNING).due == 1
    assert len(hook.received) == 3


def test_an_alert_of_last_night_does_not_wait_for_the_digest_of_tonight(outbox: Outbox, hook: Webhook) -> None:
    """R11.8: only alerts of tonight wait for the syncs of tonight."""
    outbox.urls = [hook.url()]
    district_id = outbox.district()
    outbox.failed(district_id, NINE + MINUTE)
    hook.answers = [500]
    outbox.deliver(NINE + 2 * MINUTE)
    tomorrow = NINE + timedelta(days=1)
    outbox.record(tomorrow + MINUTE, urgent=False)
    assert outbox.deliver(tomorrow + 2 * MINUTE).due == 1
    assert len(hook.received) == 1


def test_no_alert_waits_during_the_day(outbox: Outbox) -> None:
    """R11.8: not even one that is not urgent, of a late scheduled sync or of a sensor."""
    outbox.district()
    outbox.record(NOON, urgent=False)
    assert outbox.deliver(NOON).due == 1


def test_a_time_in_the_future_delays_no_alert(outbox: Outbox, hook: Webhook) -> None:
    """R11.6: neither the alert's own time, nor when a receiver is tried next."""
    outbox.urls = [hook.url()]
    year = timedelta(days=400)
    hook.answers = [503]
    outbox.record(NOON)
    assert outbox.deliver(NOON).refused == (1,)
    outbox.execute("update ops.alert_receivers set next_attempt_at = next_attempt_at + interval '400 days'")
    outbox.record(NOON + year, urgent=False)
    assert outbox.deliver(NOON + MINUTE) == DeliveryReport(due=2, accepted=(1,))
