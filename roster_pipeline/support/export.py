"""Everything that the pipeline holds about one district, as CSV files with a manifest (R18.1): `roster district offboard --export`.

Belongs here: writing the files, all or none. Does not belong here: which tables have rows of a district (`holdings.py`).

The files are for programs: a value is written as it is stored, also one that a spreadsheet would take for a formula. NULL is an empty
cell, empty text is `""`. Files and folder can be read by their owner only.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from psycopg import sql
from sqlalchemy import Connection

from roster_pipeline.database.audit import record_act
from roster_pipeline.database.engine import Database, psycopg_connection
from roster_pipeline.database.migrate import known_tables
from roster_pipeline.districts.agreement import District, find_district
from roster_pipeline.errors import PermanentError
from roster_pipeline.settings import Settings
from roster_pipeline.support.holdings import HOLDINGS
from roster_pipeline.sync.session import one_state, sync_session

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ExportedTable:
    """One file of the export.

    Attributes:
        sha256: of the file, in hexadecimal.
    """

    table: str
    file: str
    rows: int
    columns: Sequence[str]
    sha256: str


@dataclass(frozen=True)
class Export:
    """A finished export."""

    district: District
    folder: Path
    tables: Sequence[ExportedTable]


def export_district(database: Database, settings: Settings, reference: str, folder: Path, *, by: str, now: datetime) -> Export:
    """Write all rows about a district into a new folder. All tables are read in one state of the database.

    Args:
        folder: does not exist yet, or is empty. It appears when the export is complete.
        by: who does it, as they say.

    Raises:
        UnknownDistrictError: there is no such district.
        PermanentError: the folder is not empty, or a file could not be written. Nothing is left behind.
        TransientError: the database failed.
    """
    folder = folder.absolute()
    _require_room(folder)
    is_written = False
    try:
        with sync_session(database, settings) as connection, one_state(connection):
            district = find_district(connection, reference)
            with _whole(folder, district) as partial:
                tables = [_write_table(connection, district, table, partial) for table, held in HOLDINGS.items() if held.of_district]
                digest = _write_manifest(partial, district, tables, now)
                _record(connection, district, tables, digest, by=by)
            is_written = True
    except BaseException:
        # The act could not be committed to ops.audit, so the export did not take place.
        if is_written:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    log.info("district %s: exported, %d files", district.clever_id, len(tables))
    return Export(district, folder, tables)


def _record(connection: Connection, district: District, tables: Sequence[ExportedTable], manifest_digest: str, *, by: str) -> None:
    facts = {"files": len(tables), "rows": sum(each.rows for each in tables), "manifest_sha256": manifest_digest}
    subject = f"district {district.clever_id}"
    record_act(connection, "export", given_name=by, district_id=district.district_id, subject=subject, facts=facts)


def _require_room(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if os.path.lexists(folder):
        reason = f"The folder {folder} is not empty." if folder.is_dir() else f"{folder} is a file."
        raise PermanentError(f"{reason} Nothing was exported.", hint="Name a folder that does not exist yet.")
    if not folder.parent.is_dir():
        raise PermanentError(f"There is no folder {folder.parent}. Nothing was exported.", hint="Make it, or name another one.")


@contextmanager
def _whole(folder: Path, district: District) -> Iterator[Path]:
    """A folder beside the requested one, which gets its name at the end of the block. If the block fails, it is removed."""
    partial: Path | None = None
    try:
        # mkdtemp makes a folder that only its owner can use.
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
        yield partial
        os.rename(partial, folder)
        _sync_to_disk(folder.parent)
    except OSError as error:
        raise PermanentError(
            f"The export could not be written to {folder}: {error.strerror or type(error).__name__}. Nothing was exported.",
            hint="Free space there, or name another folder.",
            district=district.clever_id,
        ) from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _write_table(connection: Connection, district: District, table: str, folder: Path) -> ExportedTable:
    """Stream one table into its file."""
    columns = known_tables()[table]
    schema, _, name = table.partition(".")
    rows = sql.SQL("select {} from {} as held where {}").format(
        sql.SQL(", ").join(sql.Identifier("held", each) for each in columns),
        sql.Identifier(schema, name),
        sql.SQL(HOLDINGS[table].of_district).format(district_id=sql.Literal(district.district_id)),
    )
    statement = sql.SQL("copy ({}) to stdout (format csv, header)").format(rows)
    path, digest = folder / f"{table}.csv", hashlib.sha256()
    with psycopg_connection(connection).cursor() as cursor:
        with _new_file(path) as file, cursor.copy(statement) as copy:
            for block in copy:
                file.write(block)
                digest.update(block)
        return ExportedTable(table, path.name, cursor.rowcount, columns, digest.hexdigest())


def _write_manifest(folder: Path, district: District, tables: Sequence[ExportedTable], now: datetime) -> str:
    """The list of files. Returns its SHA-256."""
    document: Mapping[str, Any] = {
        "district": {"clever_id": district.clever_id, "district_id": district.district_id, "name": district.name},
        "exported_at": now.isoformat(),
        "format": "CSV, UTF-8, first line: columns. NULL is an empty cell, empty text is two quotes. Values are not altered.",
        "tables": [
            {
                "table": each.table,
                "file": each.file,
                "rows": each.rows,
                "sha256": each.sha256,
                "columns": [{"name": name, "personal": name in HOLDINGS[each.table].personal} for name in each.columns],
            }
            for each in tables
        ],
    }
    content = json.dumps(document, indent=2, ensure_ascii=False).encode()
    with _new_file(folder / MANIFEST) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _new_file(path: Path) -> Iterator[Any]:
    """A new file that only its owner can read, complete on the disk after the block."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync_to_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
