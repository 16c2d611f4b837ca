"""One request: which answers are retried, how often and after how long, and what an error may quote (R3.3)."""

import gzip
import json
import logging
import threading
import traceback
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest

from roster_pipeline.clever.errors import DeadlineError, RefusedError
from roster_pipeline.clever.pull import DistrictPull, Page
from roster_pipeline.errors import PermanentError, TransientError
from roster_pipeline.source.vocabulary import Collection

from .conftest import WALL, FakeTime
from .scripted import CLIENT_SECRET, DISTRICT, TOKEN, Reply, ScriptedClever, page, school

MakePull = Callable[..., DistrictPull]
SCHOOLS = "/v3.0/schools"
GOOD = Reply(page(school("a")))
MARKER = "marker-personal"


def read_schools(pull: DistrictPull) -> list[Page]:
    with pull:
        return list(pull.pages(Collection.SCHOOLS))


TRANSIENT = {
    "408": Reply(status=408),
    "429": Reply(status=429),
    "500": Reply(b"<html>oops</html>", 500),
    "502": Reply(status=502),
    "503": Reply({"message": MARKER}, 503),
    "504": Reply(status=504),
    "204": Reply(status=204),
    "206": Reply(page(school("a")), 206),
    "HTML under 200": Reply(f"<html>{MARKER}</html>".encode(), headers={"Content-Type": "text/html"}),
    "empty body": Reply(b""),
    "half a JSON document": Reply(json.dumps(page(school("a"))).encode()[:-20]),
    "JSON and more": Reply(json.dumps(page(school("a"))).encode() + b"x"),
    "not UTF-8": Reply(b'{"data": [{"data": {"id": "a", "sis_id": "\xff"}}], "links": []}'),
    "nested too deep": Reply(b'{"data": ' + b"[" * 100_000),
    "no links": Reply({"data": []}),
    "no data": Reply({"links": []}),
    "data is an object": Reply({"data": {}, "links": []}),
    "data is null": Reply({"data": None, "links": []}),
    "an error under 200": Reply({"error": MARKER}),
    "a link without uri": Reply({"data": [], "links": [{"rel": "next"}]}),
    "cut body": Reply(page(school("a")), length=100_000),
    "cut gzip body": Reply(gzip.compress(json.dumps(page(school("a"))).encode())[:-20], headers={"Content-Encoding": "gzip"}),
    "not gzip": Reply(page(school("a")), headers={"Content-Encoding": "gzip"}),
    "dropped connection": Reply(drop=True),
    "not HTTP": Reply(raw=f"{MARKER} speaking\r\n\r\n".encode()),
}


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_transient_faults_are_retried(fault: Reply, clever: ScriptedClever, make_pull: MakePull, fake_time: FakeTime) -> None:
    """R3.3: two faults and then a good answer succeed, after two waits with growing backoff."""
    clever.script(SCHOOLS, fault, fault, GOOD)
    pull = make_pull()
    (only,) = read_schools(pull)
    assert [record.id for record in only.records] == ["a"]
    assert (pull.stats.requests, pull.stats.retries) == (1 + 3 + 1, 2)
    assert 1 <= fake_time.waits[0] <= 2 <= fake_time.waits[1] <= 3


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_attempts_are_bounded_and_the_error_says_nothing_personal(
    fault: Reply, clever: ScriptedClever, make_pull: MakePull, caplog: pytest.LogCaptureFixture
) -> None:
    """R3.3, SPEC 12: after CLEVER_MAX_ATTEMPTS a transient error names district and path. It quotes no body, header or token."""
    caplog.set_level(logging.DEBUG)
    clever.script(SCHOOLS, fault)
    with pytest.raises(TransientError) as caught:
        read_schools(make_pull())
    assert len(clever.paths()) == 4
    assert DISTRICT in str(caught.value)
    assert "/v3.0/schools?limit=2" in str(caught.value)
    assert "after 4 attempts" in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    for secret in (MARKER, TOKEN, CLIENT_SECRET):
        assert secret not in shown


@pytest.mark.parametrize("status", [302, 400, 402, 403, 404, 413, 418, 501])
def test_final_statuses_are_not_retried(status: int, clever: ScriptedClever, make_pull: MakePull, fake_time: FakeTime) -> None:
    """R3.3: a permanent error, with no second request and no wait."""
    clever.script(SCHOOLS, Reply({"message": MARKER}, status), GOOD)
    with pytest.raises(RefusedError, match=str(status)) as caught:
        read_schools(make_pull())
    assert caught.value.status == status
    assert isinstance(caught.value, PermanentError)
    assert len(clever.paths()) == 1
    assert fake_time.waits == []
    assert MARKER not in str(caught.value)


def test_redirects_are_not_followed(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R12: a redirect could lead the token to another host."""
    with ScriptedClever() as other:
        clever.script(SCHOOLS, Reply(status=302, headers={"Location": f"{other.url}/v3.0/schools"}))
        with pytest.raises(RefusedError):
            read_schools(make_pull())
        assert other.seen == []


def test_a_netrc_file_does_not_replace_the_token(
    clever: ScriptedClever, make_pull: MakePull, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """requests prefers a netrc entry of the host to an Authorization header that is set only as a header."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    clever.script(SCHOOLS, GOOD)
    read_schools(make_pull())
    assert clever.seen[-1].authorization == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (f"{WALL + 40:.0f}", 40),
        (f"{WALL + 40:.0f}, {WALL + 55:.0f}", 55),
        (f"{WALL - 5:.0f}", 0),
        ("30", 30),
        ("soon", 0),
        ("", 0),
    ],
)
def test_the_rate_limit_reset_is_waited_for(
    header: str, seconds: int, clever: ScriptedClever, make_pull: MakePull, fake_time: FakeTime
) -> None:
    """R3.3: after a 429 the client waits until the last limit is reset, plus a short backoff. The header may have any case."""
    clever.script(SCHOOLS, Reply(status=429, headers={"x-ratelimit-RESET": header}), GOOD)
    read_schools(make_pull())
    (waited,) = fake_time.waits
    assert seconds + 1 <= waited <= seconds + 2


def test_a_reset_beyond_the_deadline_ends_the_pull_at_once(clever: ScriptedClever, make_pull: MakePull, fake_time: FakeTime) -> None:
    """R3.3: the wait is bounded by ROSTER_PULL_DEADLINE_S."""
    clever.script(SCHOOLS, Reply(status=429, headers={"X-RateLimit-Reset": f"{WALL + 60:.0f}"}), GOOD)
    with pytest.raises(DeadlineError, match="deadline of 50 s") as caught:
        read_schools(make_pull(roster_pull_deadline_s=50))
    assert isinstance(caught.value, TransientError)
    assert fake_time.waits == []


def test_backoff_stops_at_the_deadline(clever: ScriptedClever, make_pull: MakePull, fake_time: FakeTime) -> None:
    """R3.3: all waits together stay within the deadline, however many attempts are allowed."""
    clever.script(SCHOOLS, Reply(status=503))
    with pytest.raises(DeadlineError, match="status 503"):
        read_schools(make_pull(roster_pull_deadline_s=20, clever_max_attempts=1000))
    assert sum(fake_time.waits) < 20


def test_the_deadline_holds_inside_a_slow_drip(clever: ScriptedClever, make_pull: MakePull, fake_time: FakeTime) -> None:
    """R3.3: a body that comes byte by byte is stopped at the deadline, and is not retried."""
    finished = threading.Event()
    fake_time.tick = 0.5
    clever.script(SCHOOLS, Reply(drip_until=finished))
    try:
        with pytest.raises(DeadlineError, match="is over"):
            read_schools(make_pull(roster_pull_deadline_s=20))
    finally:
        finished.set()
    assert len(clever.paths()) == 1


def test_a_read_time_out_is_a_transient_fault(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.3: it is retried."""
    gate = threading.Event()
    clever.script(SCHOOLS, Reply(gate=gate, drop=True), GOOD)
    try:
        (only,) = read_schools(make_pull(clever_read_timeout_s=0.2))
    finally:
        gate.set()
    assert len(only.records) == 1


def test_a_closed_port_is_transient(clever: ScriptedClever, make_pull: MakePull, fake_time: FakeTime) -> None:
    """R3.3: connection faults are retried. The error names only their kind."""
    with ScriptedClever() as closed:
        url = closed.url
    with pytest.raises(TransientError, match="ConnectionError"):
        read_schools(make_pull(clever_api_url=url))
    assert len(fake_time.waits) == 3


@pytest.mark.parametrize("declared", [True, False])
def test_an_answer_larger_than_any_page_is_not_read(
    clever: ScriptedClever, make_pull: MakePull, monkeypatch: pytest.MonkeyPatch, *, declared: bool
) -> None:
    """R11.9: a small compressed answer can be gigabytes of blanks. No more of it is kept than a page can have."""
    monkeypatch.setattr("roster_pipeline.clever.http._LEAST_BODY_BYTES", 2**20)
    blanks = b" " * (2 * 2**20) + json.dumps(page(school("a"))).encode()
    clever.script(SCHOOLS, Reply(blanks) if declared else Reply(gzip.compress(blanks), headers={"Content-Encoding": "gzip"}))
    pull = make_pull()
    with pull, pytest.raises(TransientError, match="larger than any page can be"):
        list(pull.pages(Collection.SCHOOLS))


def test_compressed_bodies(clever: ScriptedClever, make_pull: MakePull) -> None:
    """A gzip body is read, and `bytes` counts it after decompression."""
    plain = json.dumps(page(school("a", name="x" * 200_000))).encode()
    clever.script(SCHOOLS, Reply(gzip.compress(plain), headers={"Content-Encoding": "gzip"}))
    pull = make_pull()
    with pull:
        before = pull.stats.bytes
        list(pull.pages(Collection.SCHOOLS))
    assert pull.stats.bytes - before == len(plain) + len(clever.count.encoded())


@pytest.mark.parametrize(("date", "says"), [("+5", 0), ("+300", 1), ("-300", 1), ("", 0), ("yesterday", 0)])
def test_another_time_at_clever_is_logged_once(
    date: str, says: int, clever: ScriptedClever, make_pull: MakePull, caplog: pytest.LogCaptureFixture
) -> None:
    """R11.6: nothing depends on it, but some clock is wrong."""
    header = formatdate(WALL + int(date), usegmt=True) if date[:1] in ("+", "-") else date
    clever.script(SCHOOLS, *[Reply(page(school("a")), headers={"Date": header})] * 2)
    with make_pull() as opened:
        caplog.clear()
        for _ in range(2):
            list(opened.pages(Collection.SCHOOLS))
    assert len([each for each in caplog.messages if "Clever's differ by" in each]) == says
