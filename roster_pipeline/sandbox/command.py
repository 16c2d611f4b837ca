"""The `sandbox` command group: `serve` runs a simulated Clever until it is stopped, `rollover` changes the year in one that runs.

Belongs here: options and printing. Does not belong here: serving (`server.py`) and the districts (`generate.py`, `payloads.py`).
"""

import json
import signal
import threading
import urllib.error
import urllib.request
from pathlib import Path

import click

from roster_pipeline.errors import RosterError, TransientError, UsageError
from roster_pipeline.sandbox.changes import ROLLOVERS
from roster_pipeline.sandbox.district import District
from roster_pipeline.sandbox.generate import generate_district
from roster_pipeline.sandbox.payloads import load_payloads
from roster_pipeline.sandbox.server import SandboxServer
from roster_pipeline.sandbox.state import Sandbox


@click.group()
def sandbox() -> None:
    """A simulated Clever on this machine."""


@sandbox.command()
@click.option("--port", default=7317, show_default=True, type=click.IntRange(0, 65535), help="Port, on loopback; 0 for any free one.")
@click.option("--districts", default=1, show_default=True, type=click.IntRange(0), help="Districts to generate.")
@click.option("--students", default=1000, show_default=True, type=click.IntRange(1), help="Students of each generated district.")
@click.option("--seed", default=1, show_default=True, help="Seed of the first generated district; each other one has the next number.")
@click.option(
    "--payloads", type=click.Path(path_type=Path), help="Serve the recorded Clever answers in this folder instead of generated districts."
)
@click.option("--rate-limit/--no-rate-limit", default=True, show_default=True, help="Clever's limit: 1,200 requests per minute and token.")
@click.option("--gzip", is_flag=True, help="Compress answers for clients that accept it.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON when ready.")
def serve(
    port: int, districts: int, students: int, seed: int, payloads: Path | None, *, rate_limit: bool, gzip: bool, as_json: bool
) -> None:
    """Serve until Ctrl-C or SIGTERM, on loopback only."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        served = [load_payloads(payloads)] if payloads else [generate_district(seed + index, students) for index in range(districts)]
        clever = Sandbox(*served, rate_limit=1200 if rate_limit else None)
        with SandboxServer(clever, port, gzip=gzip) as server:
            click.echo(_as_json(server) if as_json else _as_text(server))
            stop.wait()
    except RosterError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(error.exit_status) from None


@sandbox.command(epilog="Example: roster sandbox rollover half_loaded --step 2")
@click.argument("variant", type=click.Choice(list(ROLLOVERS)))
@click.option("--step", default=1, show_default=True, type=click.IntRange(1), help="Which step of the variant, in order.")
@click.option("--district", help="Clever id of the district, if the simulated Clever has several.")
@click.option("--seed", default=1, show_default=True, help="Seed of the new sections; the same in every step.")
@click.option("--port", default=7317, show_default=True, type=click.IntRange(1, 65535), help="Port of the running `roster sandbox serve`.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def rollover(variant: str, step: int, district: str | None, seed: int, port: int, *, as_json: bool) -> None:
    """Begin a new school year in a running `roster sandbox serve`, as it arrives at Clever.

    at_once: everything in one load. empty_july: first no sections at all. half_loaded: first half of the schools and their people. paused:
    first nothing, because the district has paused. A variant with two steps waits for --step 2.
    """
    arguments = {"variant": variant, "step": step, "seed": seed, **({"district": district} if district is not None else {})}
    result = _post(f"http://127.0.0.1:{port}/_sandbox/rollover_step", arguments)
    steps = ROLLOVERS[variant]
    if as_json:
        click.echo(json.dumps({"variant": variant, "step": step, "steps": len(steps), **result}))
        return
    click.echo(f"Step {step} of {len(steps)}: {steps[step - 1]}.")
    if result:
        click.echo(", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in result.items()) + ".")
    if step < len(steps):
        click.echo(f"Next: `roster sandbox rollover {variant} --step {step + 1}` ({steps[step]}).")


def _post(url: str, arguments: dict[str, object]) -> dict[str, int]:
    """The result of a verb of the control API. `url` is on loopback."""
    request = urllib.request.Request(url, json.dumps(arguments).encode(), {"Content-Type": "application/json"})  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            result: dict[str, int] = json.load(answer)["result"]
    except urllib.error.HTTPError as error:
        raise UsageError(str(json.load(error).get("message", error))) from None
    except urllib.error.URLError:
        raise TransientError(f"No simulated Clever answers at {url}.", hint="`roster sandbox serve` starts one.") from None
    return result


def _environment(server: SandboxServer) -> dict[str, str]:
    clever = server.sandbox
    return {
        "CLEVER_API_URL": server.url,
        "CLEVER_AUTH_URL": server.url,
        "CLEVER_CLIENT_ID": clever.client_id,
        "CLEVER_CLIENT_SECRET": clever.client_secret,
    }


def _counts(district: District) -> dict[str, int]:
    return {
        "schools": len(district.shared("schools")),
        "sections": len(district.shared("sections")),
        **{f"{role}s": len(district.shared("users", role)) for role in ("student", "teacher", "district_admin")},
        "staff": len(district.shared("users", "staff")),
    }


def _as_json(server: SandboxServer) -> str:
    districts = {district.id: _counts(district) for district in server.sandbox.districts.values()}
    return json.dumps({"environment": _environment(server), "districts": districts, "control": f"{server.url}/_sandbox"})


def _as_text(server: SandboxServer) -> str:
    lines = [f"Simulated Clever at {server.url}", "", *(f"export {name}={value}" for name, value in _environment(server).items()), ""]
    lines += [_as_line(district) for district in server.sandbox.districts.values()]
    control = f"{server.url}/_sandbox"
    lines += [
        "",
        f"Change it:  curl -X POST {control}/night_of_changes -d '{{\"seed\": 1}}'    State: curl {control}/state",
        "Stop it with Ctrl-C.",
    ]
    return "\n".join(lines)


def _as_line(district: District) -> str:
    return f"district {district.id}: " + ", ".join(f"{number} {name}" for name, number in _counts(district).items())
