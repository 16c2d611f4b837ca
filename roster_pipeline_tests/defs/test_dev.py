"""`roster dev` as a process: it answers, and no process is left after it is stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg import sql

from roster_pipeline.database.engine import Database
from roster_pipeline.dev import run_dev
from roster_pipeline.errors import PermanentError
from roster_pipeline.settings import Settings
from roster_pipeline_tests.alive import alive

START = """
import sys
from roster_pipeline.dev import run_dev
from roster_pipeline.settings import settings
sys.exit(run_dev(settings(), port=int(sys.argv[1]), say=lambda line: print(line, file=sys.stderr)))
"""
PARTITIONS = """{ partitionSetsOrError(pipelineName: "sync_district", repositorySelector: {
    repositoryLocationName: "roster_pipeline", repositoryName: "__repository__"}) {
    ... on PartitionSets { results { partitionsOrError { ... on Partitions { results { name } } } } } } }"""
DEADLINE_S = 180


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def partitions(port: int) -> list[str]:
    body = json.dumps({"query": PARTITIONS}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        (found,) = json.load(answer)["data"]["partitionSetsOrError"]["results"]
    return [each["name"] for each in found["partitionsOrError"]["results"]]


def asked(port: int, headers: dict[str, str]) -> int:
    """The status of a query with these headers."""
    own = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", b'{"query": "{version}"}', own | headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_it_answers_and_ends_without_orphans(environment: None, database: Database, clever_id: str, tmp_path: Path) -> None:
    """The district's partition exists when the UI answers. SIGTERM leaves no process, also if a shell's `&` made it ignore SIGINT."""
    port = free_port()
    own = {name: value for name, value in os.environ.items() if name not in ("DAGSTER_HOME", "ROSTER_DAGSTER_URL")}
    command = [sys.executable, "-c", START, str(port)]
    output = tmp_path / "output"
    try:
        with output.open("wb") as sink:
            # What `&` does in a script.
            launcher = subprocess.Popen(
                command, cwd=tmp_path, env=own, stdout=sink, stderr=sink, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
            )
        deadline = time.monotonic() + DEADLINE_S
        while "Dagster's UI" not in output.read_text():
            assert launcher.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.05)
        assert partitions(port) == [clever_id]
        for status, headers in ((200, {}), (403, {"Origin": "https://evil.example"}), (403, {"Host": "attacker.example"})):
            assert asked(port, headers) == status
        started = psutil.Process(launcher.pid).children(recursive=True)
        assert len(started) >= 4
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(DEADLINE_S) == 0, output.read_text()
        assert alive(started) == []
        assert (tmp_path / "dagster" / "dagster.yaml").exists()
    finally:
        if launcher.poll() is None:
            launcher.send_signal(signal.SIGTERM)
            launcher.wait(DEADLINE_S)
        with psycopg.connect(
            database.url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
        ) as connection:
            name = sql.Identifier(str(database.dagster_url.database))
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(name))


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """The error comes before anything is started or written."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PermanentError, match="cannot be used") as refused:
        run_dev(Settings(roster_home=tmp_path / "home"), port=taken.getsockname()[1], say=print)
    assert "--port" in refused.value.hint
    assert not (tmp_path / "home").exists()
