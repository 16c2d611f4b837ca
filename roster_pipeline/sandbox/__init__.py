"""A simulated Clever on loopback: its token list, its Data API v3.0/v3.1, and its failures.

Belongs here: everything that runs, fills, changes and breaks the simulated Clever. Does not belong here: the pipeline's own client, and
anything that reads the pipeline's database. Only the `roster` command and the demo import this package.
"""

from roster_pipeline.sandbox.changes import Changes
from roster_pipeline.sandbox.district import District
from roster_pipeline.sandbox.generate import generate_district
from roster_pipeline.sandbox.payloads import load_payloads
from roster_pipeline.sandbox.server import SandboxServer
from roster_pipeline.sandbox.state import Sandbox

__all__ = ["Changes", "District", "Sandbox", "SandboxServer", "generate_district", "load_payloads"]
