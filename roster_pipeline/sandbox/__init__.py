"""A faithful stand-in for Clever on loopback: its token list, its Data API v3.0/v3.1, and its bad days.

Belongs here: everything needed to run, fill, change and break a simulated Clever. Does not belong here: the pipeline's own client, and
anything that reads the pipeline's database. No other package of the pipeline imports this one, except the command line.
"""

from roster_pipeline.sandbox.changes import Changes
from roster_pipeline.sandbox.district import District
from roster_pipeline.sandbox.generate import generate_district
from roster_pipeline.sandbox.payloads import load_payloads
from roster_pipeline.sandbox.server import SandboxServer
from roster_pipeline.sandbox.state import Sandbox

__all__ = ["Changes", "District", "Sandbox", "SandboxServer", "generate_district", "load_payloads"]
