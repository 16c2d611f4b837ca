"""The server is ready when it is entered, and leaves nothing open; the command prints what to export, and ends cleanly."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
import requests
from click.testing import CliRunner

from roster_pipeline.errors import PermanentError
from roster_pipeline.sandbox import District, Sandbox, SandboxServer
from roster_pipeline.sandbox.command import sandbox as command

from .client import Client

DISTRICT = {"id": "d" * 24, "name": "D"}


def test_server_gives_everything_back() -> None:
    """It leaves no thread, socket or port open, even during an endless answer and with an idle connection."""
    threads = threading.active_count()
    for _ in range(3):
        sandbox = Sandbox(District(dict(DISTRICT)))
        sandbox.misbehave("drip", "terms", seconds=0.01)
        with SandboxServer(sandbox) as server:
            client = Client(server, sandbox.district())
            assert client.get("/v3.0/schools").status_code == 200
            dripping = client.session.get(f"{server.url}/v3.0/terms", stream=True, timeout=10)
            port = int(server.url.rsplit(":", 1)[1])
        dripping.close()
        client.session.close()
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(f"{server.url}/v3.0/schools", timeout=10)
        assert threading.active_count() == threads
        assert not [
            item for item in psutil.Process().net_connections("tcp") if item.status == psutil.CONN_LISTEN and item.laddr.port == port
        ]


def test_port_in_use_is_a_clear_error() -> None:
    """With the port in the sentence and a way out in the hint."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PermanentError, match=f"cannot listen on 127.0.0.1:{port}"), SandboxServer(Sandbox(), port):
            pass
        result = CliRunner().invoke(command, ["serve", "--port", str(port), "--districts", "0"])
        assert result.exit_code == 1
        assert "cannot listen" in result.stderr


def test_gzip_is_for_those_who_ask() -> None:
    """Off by default: compressing costs more than loopback."""
    district = District(dict(DISTRICT))
    for number in range(50):
        district.put("schools", f"{number:024d}", {"id": f"{number:024d}", "name": "S"})
    for gzip, encoding in ((True, "gzip"), (False, None)):
        with SandboxServer(Sandbox(district), gzip=gzip) as server:
            client = Client(server, district)
            with client.session:
                answer = client.get("/v3.0/schools")
                assert answer.headers.get("content-encoding") == encoding
                assert len(answer.json()["data"]) == 50


def test_concurrent_readers_see_whole_changes() -> None:
    """A page is from before or after a change, never from the middle: during swaps, each username occurs once."""
    district = District(dict(DISTRICT))
    sandbox = Sandbox(district, rate_limit=None)
    change = sandbox.change()
    keys = [change.add_user("student", "A", "B", username=name) for name in ("one", "two")]
    seen: list[set[str]] = []
    with SandboxServer(sandbox) as server:
        client = Client(server, district)

        def read() -> None:
            for _ in range(60):
                page = client.walk("/v3.0/users")
                seen.append({user["roles"]["student"]["credentials"]["district_username"] for user in page})

        reader = threading.Thread(target=read)
        reader.start()
        while reader.is_alive():
            change.swap_usernames(*keys)
            time.sleep(0.001)  # Otherwise this thread keeps the lock and the interpreter nearly to itself.
        reader.join()
        client.session.close()
    assert seen == [{"one", "two"}] * 60


@contextmanager
def served(*options: str) -> Iterator[subprocess.Popen[str]]:
    """`sandbox serve` as a process of its own, ended at the latest on leaving."""
    program = "from roster_pipeline.sandbox.command import sandbox; sandbox()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_what_to_export_and_ends_cleanly(number: signal.Signals) -> None:
    """`--json` prints one line once it answers; Ctrl-C and SIGTERM end it with status 0."""
    with served("--districts", "2", "--students", "40", "--seed", "3", "--no-rate-limit", "--json") as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        environment = ready["environment"]
        assert environment["CLEVER_API_URL"] == environment["CLEVER_AUTH_URL"]
        answer = requests.get(
            f"{environment['CLEVER_AUTH_URL']}/oauth/tokens",
            auth=(environment["CLEVER_CLIENT_ID"], environment["CLEVER_CLIENT_SECRET"]),
            timeout=10,
        )
        assert {token["owner"]["id"] for token in answer.json()["data"]} == set(ready["districts"])
        assert [counts["students"] for counts in ready["districts"].values()] == [40, 40]
        assert requests.get(f"{ready['control']}/state", timeout=10).json()["districts"].keys() == ready["districts"].keys()
        process.send_signal(number)
        rest, errors = process.communicate(timeout=20)
        assert (process.returncode, rest, errors) == (0, "", "")


def test_serve_prints_lines_to_paste() -> None:
    """For a person: export lines, districts with counts, the control API."""
    with served("--students", "30") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().rstrip() for _ in range(11)]
        text = "\n".join(lines)
        url = lines[0].split()[-1]
        for line in (f"export CLEVER_API_URL={url}", f"export CLEVER_AUTH_URL={url}", "export CLEVER_CLIENT_ID=sandbox"):
            assert line in lines
        assert "30 students" in text
        assert f"{url}/_sandbox" in text
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0


def test_serve_names_a_missing_recording() -> None:
    """Wrong usage: exit status 2."""
    result = CliRunner().invoke(command, ["serve", "--payloads", "/nonexistent"])
    assert result.exit_code == 2
    assert "no folder" in result.stderr
