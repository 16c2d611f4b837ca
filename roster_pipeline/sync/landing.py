"""The pages of the current pull, in temporary tables of the sync's session: `clever.schools`, `clever.users`, ...

Belongs here: making these tables from the contracts, and loading frames into them with COPY. Does not belong here: what a frame is
(`frames.py`), seen records (`restore.py`), and what the rows mean (`dbt_like_sql/staging/`). The tables end with the session, so a pull
that fails leaves nothing (R3.2).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

import psycopg
import pyarrow
from psycopg import sql

from roster_pipeline import contracts
from roster_pipeline.database.copying import copy_rows
from roster_pipeline.database.session import OwnSession, not_one_session, own_transaction
from roster_pipeline.districts.tombstones import leave_out_erased
from roster_pipeline.source import times
from roster_pipeline.source.protocol import SourceDistrict, SourcePage
from roster_pipeline.source.rules import DISTRICTS, check_listed, finding
from roster_pipeline.source.vocabulary import Collection, Finding
from roster_pipeline.sync.frames import Frame

# What each row has in addition to the columns of its contract. If two records of one id are equally new, the later position counts (R3.8).
# The next pull identifies the record by its digest. A record that lost a value has none.
_ALL_HAVE = "position bigint not null, digest uuid, rejected boolean not null"
_EXTRA = {"users": "collection text not null, "}


class Landing:
    """The temporary tables of one pull.

    Attributes:
        rows: number of records loaded, by collection.
        findings: how often each rule was broken, by resource, rule and severity.
    """

    def __init__(self, connection: "psycopg.Connection[tuple[object, ...]]", own: OwnSession) -> None:
        self.rows: Counter[Collection] = Counter()
        self.findings: Counter[tuple[str, str, str]] = Counter()
        self._connection = connection
        self._own = own
        try:
            with own_transaction(self._connection, self._own):
                self._create()
        except psycopg.errors.DuplicateTable:
            # Each pull has a new session, so the tables are those of another process that was given this session.
            raise not_one_session() from None

    def _create(self) -> None:
        for resource in contracts.RESOURCES:
            columns = ", ".join(f"{column.name} {column.sql_type}" for column in contracts.columns(resource))
            self._execute(f'create temporary table "clever.{resource}" ({_EXTRA.get(resource, "")}{columns}, {_ALL_HAVE})')
        self._execute(
            'create temporary table "clever.districts" '
            "(clever_id text, name text, state text, last_sync timestamptz, pulled_at timestamptz)"
        )
        self._execute('create temporary table "clever.findings" (resource text, clever_id text, rule text, severity text)')

    def district(self, district: SourceDistrict, pulled_at: datetime) -> None:
        """Load the district object, and what was wrong with it. Its texts are clean."""
        findings = list(district.findings)
        last_sync = times.instant(district.last_sync) if district.last_sync else None
        if district.last_sync and last_sync is None:
            findings.append(finding(DISTRICTS, district.id, "last_sync_format"))
        values = (district.id, district.name or "", district.state, last_sync, pulled_at)
        with own_transaction(self._connection, self._own):
            self._connection.execute('insert into pg_temp."clever.districts" values (%s, %s, %s, %s, %s)', values)
        self._findings(DISTRICTS, findings)

    def load(self, collection: Collection, page: SourcePage, frame: Frame) -> None:
        """Load one page: its rows and its findings."""
        table = frame.table
        unreadable = table.num_rows - len(page.digests)
        digests = [digest and digest.hex() for digest in page.digests] + [None] * unreadable
        if broken := {each.clever_id for each in frame.findings}:
            # Records with findings get no digest, so they are validated again on every pull.
            ids = table.column("clever_id").to_pylist()
            digests = [None if clever_id in broken else digest for clever_id, digest in zip(ids, digests, strict=True)]
        table = table.append_column("digest", pyarrow.array(digests, pyarrow.string()))
        table = table.append_column("position", pyarrow.array([*page.positions, *[page.end] * unreadable], pyarrow.int64()))
        if collection.resource in _EXTRA:
            table = table.append_column("collection", pyarrow.array([collection.value] * table.num_rows, pyarrow.string()))
        self._copy(f"clever.{collection.resource}", table)
        self.rows[collection] += table.num_rows
        self._findings(collection.resource, frame.findings)

    def leave_out_erased(self, district_id: int) -> None:
        """Remove the people who were erased (R18.2). Call it after the last page, and before anything reads the landing."""
        with own_transaction(self._connection, self._own):
            people, removed = leave_out_erased(self._connection, district_id)
        self.findings -= Counter({("users", *broken): rows for broken, rows in removed.items()})
        # It is counted, and names nobody.
        self._findings("users", [finding("users", "", "erased")] * people)

    def complete(self) -> None:
        """Finish the landing, after the last record: remove the digests of records with two versions, and analyze the tables."""
        for resource in contracts.RESOURCES:
            # A record delivered in two versions gets no digest: the next pull has to decide again which version counts.
            self._execute(f"""
                update pg_temp."clever.{resource}" as landed
                set digest = null
                from (
                    select clever_id
                    from pg_temp."clever.{resource}"
                    group by clever_id
                    having count(*) > 1 and (count(digest) < count(*) or min(cast(digest as text)) < max(cast(digest as text)))
                ) as versions
                where landed.clever_id = versions.clever_id
            """)  # noqa: S608  (our own names)
            self._execute(f'analyze pg_temp."clever.{resource}"')

    def _findings(self, resource: str, findings: Sequence[Finding]) -> None:
        if not findings:
            return
        for each in set(findings):
            check_listed(resource, each)
        self.findings.update((resource, each.rule, each.severity) for each in findings)
        columns: dict[str, Iterable[str]] = {
            "resource": [resource] * len(findings),
            "clever_id": [each.clever_id for each in findings],
            "rule": [each.rule for each in findings],
            "severity": [each.severity for each in findings],
        }
        self._copy("clever.findings", pyarrow.table(columns))

    def _copy(self, name: str, table: pyarrow.Table) -> None:
        with own_transaction(self._connection, self._own):
            copy_rows(self._connection, sql.Identifier("pg_temp", name), table)

    def _execute(self, statement: str) -> None:
        self._connection.execute(statement.encode())
