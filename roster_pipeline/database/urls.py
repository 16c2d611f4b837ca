"""Addresses of databases: which ones are accepted, and Dagster's own.

Belongs here: reading ROSTER_DATABASE_URL and ROSTER_DAGSTER_DATABASE_URL. Does not belong here: opening them (`engine.py`).
"""

import ipaddress
import os
import re

import sqlalchemy.exc
from sqlalchemy import URL, make_url

from roster_pipeline.database.session import dagster_options
from roster_pipeline.errors import PermanentError

_SCHEMES = {"postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"}


def parse_url(text: str, variable: str) -> URL:
    """The URL of a PostgreSQL database, for psycopg.

    Args:
        text: the value of an environment variable. It can name several hosts, as libpq's URLs can.
        variable: its name, for the error.

    Raises:
        PermanentError: it is not such a URL, or it leads to another machine and does not say how the connection is encrypted (R11.9).
    """
    try:
        url = make_url(_one_host(text.strip()))
    except (sqlalchemy.exc.ArgumentError, ValueError):  # ValueError: the port is not a number
        url = None
    if url is None or url.drivername not in _SCHEMES or not url.database:
        raise PermanentError(
            f"{variable} is not a PostgreSQL URL with a database name.", hint="Write postgresql://user:password@host:5432/database."
        )
    if "sslmode" not in url.query and not all(map(_is_here, _hosts(url))):
        raise PermanentError(
            f"{variable} leads to another machine and does not say how the connection is encrypted.",
            hint="Add ?sslmode=verify-full&sslrootcert=system (or a file). sslmode=require encrypts, but does not check the server.",
        )
    return url.set(drivername="postgresql+psycopg")


def for_dagster(url: URL) -> URL:
    """The URL of Dagster's own database, with the settings of a session in it: Dagster opens its connections itself (R11.9)."""
    options = f"{url.query.get('options', '')} {dagster_options()}".strip()
    return url.set(drivername="postgresql+psycopg2").update_query_dict({"options": options, "client_encoding": "UTF8"})


def are_on_one_server(one: URL, other: URL) -> bool:
    """Whether two URLs lead to one server as one user."""
    return _server(one) == _server(other)


def _server(url: URL) -> tuple[object, ...]:
    return url.host, url.port, url.username, url.query.get("host"), url.query.get("port")


def _one_host(text: str) -> str:
    """The same URL as SQLAlchemy reads it: libpq's list of hosts, //h1:p1,h2:p2/database, becomes ///database?host=h1:p1&host=h2:p2."""
    found = re.fullmatch(r"([^:/]+://)([^/?#]*@)?([^/?#@]*,[^/?#@]*)(/[^?#]*)?(?:\?(.*))?", text)
    if found is None:
        return text
    scheme, user, hosts, path, query = (part or "" for part in found.groups())
    return f"{scheme}{user}{path}?" + "&".join([*(f"host={each}" for each in hosts.split(",")), *([query] if query else [])])


def _hosts(url: URL) -> list[str]:
    """The hosts that libpq would try, some with a port. Without any it is a local socket, or PGHOST."""
    named = url.query.get("host", ())
    hosts = [*([url.host] if url.host else []), *([named] if isinstance(named, str) else named)]
    return hosts or os.environ.get("PGHOST", "/").split(",")


def _is_here(host: str) -> bool:
    """Whether it is a local socket or this machine."""
    if host.startswith(("/", "@")):
        return True
    name = re.sub(r"^\[(.*)\](:\d+)?$|^([^:]*):\d+$", r"\1\3", host)
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
