"""The same district loaded by dlt: `python -m benchmarks.with_dlt DISTRICT [--way arrow|rest]`, a step of the benchmark.

dlt reads the same pages of the simulated Clever over HTTP, and merges them into a schema of its own in the same PostgreSQL. It loads what
the product stages: schools, terms, courses, sections with their members, and users of the four roles. It applies no rules or brakes,
matches nobody and has no history, so it does less work.

Both ways use what dlt's documentation recommends for speed: whole pages, orjson, larger buffers, no compression, CSV files that COPY loads,
the merge strategy `cdc` (an upsert that also deletes missing rows, and skips unchanged rows by comparing `last_modified` alone), no nested
tables (members are one JSON column), and PostgreSQL sessions with the product's work_mem.

- `arrow`: pages become Arrow tables, which skip dlt's normalizer. It is faster, and needs code for every resource.
- `rest`: pages go through RESTClient.paginate and the normalizer, in two processes, as in dlt's tutorials.

Needs the packages of requirements-dlt.lock.
"""

import argparse
import os

# dlt reads these when it is imported.
os.environ.update(
    {
        # Send no usage data.
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "ERROR",
        "DATA_WRITER__BUFFER_MAX_ITEMS": "50000",
        # Several files for a large table, so that the normalizer's processes and the loader's threads share the work.
        "DATA_WRITER__FILE_MAX_ITEMS": "50000",
        "DATA_WRITER__DISABLE_COMPRESSION": "true",
        "LOAD__DELETE_COMPLETED_JOBS": "true",
    }
)

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dlt

# dlt would import these when it first needs them. Imported here, they are not part of the measured time.
import dlt.destinations.impl.postgres.postgres
import pandas as pd  # noqa: F401
import pyarrow
import pyarrow.csv
import sqlalchemy as sa
from dlt.common import json
from dlt.sources.helpers import requests
from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.auth import BearerTokenAuth
from dlt.sources.helpers.rest_client.paginators import JSONLinkPaginator

from benchmarks.measure import print_figures, written
from roster_pipeline.database.engine import Database, open_database
from roster_pipeline.settings import Settings

DATASET = "by_dlt"

Record = dict[str, Any]

# Table -> endpoint and role. A user with two roles is a row of two tables, because the keys of a dlt upsert must be unique in a load.
TABLES = {
    "schools": ("schools", None),
    "terms": ("terms", None),
    "courses": ("courses", None),
    "sections": ("sections", None),
    "students": ("users", "student"),
    "teachers": ("users", "teacher"),
    "staff": ("users", "staff"),
    "district_admins": ("users", "district_admin"),
}


def load(database: Database, settings: Settings, district: str, way: str) -> dict[str, Any]:
    """Loads the district once. Returns the seconds, also of dlt's steps, the WAL bytes, and the rows that are loaded now."""
    url = database.url
    # dlt requires a host and a password. libpq uses the socket in `host=` of the query.
    url = url.set(drivername="postgresql", host=url.host or "localhost", password=url.password or "none", port=url.port or 5432)
    url = url.update_query_dict({"options": f"-cwork_mem={settings.roster_work_mem}"})
    dataset = f"{DATASET}_{way}"
    # The normalizer only writes Arrow tables as CSV: for that, another process takes more time than it saves.
    os.environ["NORMALIZE__WORKERS"] = "1" if way == "arrow" else "2"
    with written(database) as what:
        start = time.perf_counter()
        pipeline = dlt.pipeline(
            pipeline_name=dataset,
            pipelines_dir=str(settings.roster_home.resolve() / "dlt"),
            destination=dlt.destinations.postgres(url.render_as_string(hide_password=False)),
            dataset_name=dataset,
        )
        pipeline.run(_resources(settings, district, way), loader_file_format="csv")
        seconds = time.perf_counter() - start
    steps = {step.step: (step.finished_at - step.started_at).total_seconds() for step in pipeline.last_trace.steps if step.step != "run"}
    return {"seconds": seconds, "steps": steps, "wal_bytes": what.wal_bytes, **_loaded(database, dataset), "dlt": dlt.__version__}


def _resources(settings: Settings, district: str, way: str) -> list[Any]:
    """Every table as a resource of dlt."""
    client = RESTClient(f"{settings.clever_api_url}/{settings.clever_api_version}", auth=BearerTokenAuth(token=_token(settings, district)))
    pages = _arrow_pages if way == "arrow" else _rest_pages
    strategy = {"disposition": "merge", "strategy": "cdc", "skip_unchanged_rows": True}
    return [
        dlt.resource(
            pages(client, settings, table, endpoint, role),
            name=table,
            primary_key="id",
            write_disposition=strategy | ({"row_version_column_name": "last_modified"} if table in VERSIONED else {}),
            columns={column: {"data_type": "json"} for column in JSON_COLUMNS.get(table, ())},
            max_table_nesting=0,
        )
        for table, (endpoint, role) in TABLES.items()
    ]


def _token(settings: Settings, district: str) -> str:
    assert settings.clever_client_id is not None
    assert settings.clever_client_secret is not None
    answer = requests.get(
        f"{settings.clever_auth_url}/oauth/tokens",
        params={"owner_type": "district"},
        auth=(settings.clever_client_id, settings.clever_client_secret.get_secret_value()),
    )
    [token] = [each["access_token"] for each in answer.json()["data"] if each["owner"]["id"] == district]
    return str(token)


# --- the way of the tutorials ---


def _rest_pages(client: RESTClient, settings: Settings, table: str, endpoint: str, role: str | None) -> Iterator[list[Record]]:
    pages = client.paginate(
        endpoint,
        params=_parameters(settings, role),
        data_selector="data",
        paginator=JSONLinkPaginator(next_url_path="links[?(@.rel=='next')].uri"),
    )
    for page in pages:
        yield [ROWS[table](each["data"]) for each in page]


# --- the way through Arrow ---


def _arrow_pages(client: RESTClient, settings: Settings, table: str, endpoint: str, role: str | None) -> Iterator[pyarrow.Table]:
    path: str | None = endpoint
    parameters: dict[str, Any] | None = _parameters(settings, role)
    while path:
        answer = client.get(path, params=parameters)
        answer.raise_for_status()
        body = json.loadb(answer.content)
        rows = [ROWS[table](each["data"]) for each in body["data"]]
        if rows:
            yield _arrow(table, rows)
        links = {link["rel"]: link["uri"] for link in body["links"]}
        path, parameters = (settings.clever_api_url + links["next"] if "next" in links else None), None


def _arrow(table: str, rows: Sequence[Record]) -> pyarrow.Table:
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
    for name in JSON_COLUMNS.get(table, ()):
        columns[name] = [json.dumps(value) for value in columns[name]]
    return pyarrow.table({name: pyarrow.array(values, pyarrow.string()) for name, values in columns.items()})


def _parameters(settings: Settings, role: str | None) -> dict[str, Any]:
    return {"limit": settings.clever_page_limit} | ({"role": role} if role else {})


# --- the fields that are loaded of a record ---


def _school(record: Record) -> Record:
    return {"id": record["id"], "name": record.get("name"), "last_modified": record["last_modified"]}


def _term(record: Record) -> Record:
    return {"id": record["id"], "name": record.get("name"), "start_date": record.get("start_date"), "end_date": record.get("end_date")}


def _course(record: Record) -> Record:
    return {"id": record["id"], "name": record.get("name"), "number": record.get("number")}


def _section(record: Record) -> Record:
    return {
        "id": record["id"],
        "name": record.get("name"),
        "school": record.get("school"),
        "course": record.get("course"),
        "term": record.get("term_id"),
        "students": record["students"],
        "teachers": record["teachers"],
        "last_modified": record["last_modified"],
    }


def _person(record: Record, role: Record) -> Record:
    name = record["name"]
    return {
        "id": record["id"],
        "first_name": name.get("first"),
        "middle_name": name.get("middle"),
        "last_name": name.get("last"),
        "username": role.get("credentials", {}).get("district_username"),
        "last_modified": record["last_modified"],
    }


def _student(record: Record) -> Record:
    role = record["roles"]["student"]
    return _person(record, role) | {
        "sis_id": role.get("sis_id"),
        "state_id": role.get("state_id"),
        "student_number": role.get("student_number"),
        "grade": role.get("grade"),
        "school": role.get("school"),
        "schools": role["schools"],
    }


def _teacher(record: Record) -> Record:
    role = record["roles"]["teacher"]
    return _person(record, role) | {
        "email": record.get("email"),
        "sis_id": role.get("sis_id"),
        "state_id": role.get("state_id"),
        "school": role.get("school"),
        "schools": role["schools"],
    }


def _staff(record: Record) -> Record:
    role = record["roles"]["staff"]
    return _person(record, role) | {"email": record.get("email"), "schools": role["schools"]}


def _district_admin(record: Record) -> Record:
    return _person(record, record["roles"]["district_admin"]) | {"email": record.get("email")}


ROWS: dict[str, Callable[[Record], Record]] = {
    "schools": _school,
    "terms": _term,
    "courses": _course,
    "sections": _section,
    "students": _student,
    "teachers": _teacher,
    "staff": _staff,
    "district_admins": _district_admin,
}
# In Clever, terms and courses have no last_modified, so dlt compares all their columns.
VERSIONED = TABLES.keys() - {"terms", "courses"}
JSON_COLUMNS = {"sections": ("students", "teachers"), "students": ("schools",), "teachers": ("schools",), "staff": ("schools",)}


# --- what is loaded ---


def _loaded(database: Database, dataset: str) -> dict[str, Any]:
    """The rows of every table, the users with any role, each once, and the members of sections."""
    people = " union ".join(f"select id from {dataset}.{table}" for table, (_, role) in TABLES.items() if role)
    counts = ", ".join(f"(select count(*) from {dataset}.{table}) as {table}" for table in TABLES)
    members = " + ".join(f"json_array_length({column}::json)" for column in JSON_COLUMNS["sections"])
    query = sa.text(f"""
        select
            {counts},
            (select count(*) from ({people}) as people) as users,
            (select sum({members})::bigint from {dataset}.sections) as members
    """)
    with database.engine.connect() as connection:
        return {"rows": dict(connection.execute(query).mappings().one())}


def main() -> None:
    """Runs the step. The last line of its output is JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.with_dlt")
    parser.add_argument("district")
    parser.add_argument("--way", choices=["arrow", "rest"], default="arrow")
    arguments = parser.parse_args()
    settings = Settings(_env_file=None)
    with open_database(settings) as database:
        print_figures(load(database, settings, arguments.district, arguments.way))


if __name__ == "__main__":
    main()
