"""A district that is synced without HTTP: it takes records as JSON pages, and returns rows of `app`, also in the terms of the model.

Belongs here: a pull from memory, and reading and comparing rows. Everything from the decoder to the commit is the real pipeline. Does not
belong here: the expected result (`model.py`) and the input (`world.py`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.brake_kinds import KINDS
from roster_pipeline.clever.decode import CollectionDecoder, ListBody, parse_body
from roster_pipeline.clever.pull import DistrictPull, Page
from roster_pipeline.database.engine import Database
from roster_pipeline.database.migrate import known_tables
from roster_pipeline.database.runner import FOUND, local_name
from roster_pipeline.districts.agreement import Agreement, District, find_district, record_agreement
from roster_pipeline.districts.windows import Kind, Window
from roster_pipeline.profiles import Brakes
from roster_pipeline.settings import Settings
from roster_pipeline.source.digests import SnapshotIndex
from roster_pipeline.source.protocol import OnListing, PullStats, SourceDistrict
from roster_pipeline.source.vocabulary import Collection
from roster_pipeline.support import holds
from roster_pipeline.sync.plan import Plan
from roster_pipeline.sync.run import SyncReport, SyncRequest, plan_sync, run_sync
from roster_pipeline.sync.session import PlanningContext
from roster_pipeline.sync.sources import OpenSource
from roster_pipeline_tests.reference.reasons import Reason
from roster_pipeline_tests.reference.rows import Agreed, Classroom, Enrollment, Hold, Id, Record, Role, Rules, School, Snapshot, State, User
from roster_pipeline_tests.reference.windows import agree_on, in_rollover, on_at

ENTITY_ID = {
    "schools": ("school_id",),
    "classrooms": ("classroom_id",),
    "users": ("user_id",),
    "user_roles": ("user_id", "role", "school_id"),
    "enrollments": ("classroom_id", "user_id", "role"),
}
# Limits so high that no small district trips a brake (R7.3).
NO_BRAKES = {name: 10**6 for name in Brakes.model_fields if name.endswith("_floor")}
SETTINGS = Settings(roster_home=Path("/nonexistent"))

Row = Mapping[str, Any]
Rows = dict[str, dict[str, Row]]
"""Every row of a district: table -> entity id as in `ops.changes` -> columns, xmin and ctid among them."""


class RecordedPull:
    """A roster source that reads a snapshot from memory. It has records of Clever, so it uses the decoder for Clever."""

    code = DistrictPull.code

    def __init__(self, snapshot: Snapshot, page_size: int, district: District) -> None:
        self.stats = PullStats()
        self.index = SnapshotIndex()
        self._clever_id = district.clever_id
        self._keep_student_email = district.require_rules().student_email
        self._prefer_name = district.require_rules().student_name == "preferred"
        self._snapshot = snapshot
        self._page_size = page_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def district(self) -> SourceDistrict:
        return SourceDistrict(self._clever_id, "District", None, "2026-01-01T00:00:00.000Z")

    def request(self, collections: Iterable[Collection]) -> None:
        """Nothing has to be waited for."""

    def pages(self, collection: Collection) -> Iterator[Page]:
        records: Sequence[Record] = {
            Collection.SCHOOLS: self._snapshot.schools,
            Collection.SECTIONS: self._snapshot.sections,
            Collection.TERMS: self._snapshot.terms,
            Collection.COURSES: (),
        }.get(collection) or [each for each in self._snapshot.users if collection.role in each["roles"]]
        decoder = CollectionDecoder(
            collection, self._clever_id, keep_student_email=self._keep_student_email, prefer_name=self._prefer_name, index=self.index
        )
        elements = [self._element({"data": each}) for each in records]
        elements += [self._element(each) for where, each in self._snapshot.odd if where == collection]
        for number, start in enumerate(range(0, len(elements), self._page_size), 1):
            body = json.dumps({"data": elements[start : start + self._page_size], "links": []})
            yield Page(collection, number, decoder.decode(parse_body(body.encode(), ListBody).data))
        decoder.check_shape()

    def _element(self, element: Any) -> Any:
        """An element of `data`. A record that names no district is one of this district; "" stays, which is a record without one (R3.6)."""
        if not isinstance(element, dict) or not isinstance(record := element.get("data"), dict):
            return element
        return {**element, "data": {**record, "district": self._clever_id if record.get("district") is None else record["district"]}}


def recorded(snapshot: Snapshot, page_size: int) -> OpenSource:
    """A source that opens this snapshot instead of a district at Clever."""

    def open_recorded(_settings: Settings, district: District, _on_listing: OnListing) -> RecordedPull:
        return RecordedPull(snapshot, page_size, district)

    return open_recorded


# The time of the pull differs, and only a full plan makes the readiness report.
NOT_COMPARED = ("staging.districts", "reconcile.readiness")


@dataclass(frozen=True)
class FullPlan:
    """The result of a full plan.

    Attributes:
        counts: as in `ops.syncs.counts`.
        kept: the lasting tables after it, as `LiveDistrict.kept` returns them.
        findings: what the audits return, as `LiveDistrict.findings` returns it.
    """

    counts: Mapping[str, Any]
    kept: Mapping[str, Sequence[Row]]
    findings: Sequence[tuple[str, ...]]


_numbers = count(1)


class Clock:
    """The time of every sync and decision: each is a minute after the one before."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def tick(self) -> datetime:
        """The next minute."""
        self.now += timedelta(minutes=1)
        return self.now


@dataclass
class LiveDistrict:
    """One district in a real database. Its Clever id is unique; its people and places can have ids that other districts use too.

    Attributes:
        hold_acts: the acts of each hold, by its number; `ops.holds` has only a hash over them.
        windows: those that were not cancelled.
        is_first: no sync has been applied yet.
    """

    database: Database
    clever_id: str
    clock: Clock = field(default_factory=Clock)
    hold_acts: dict[int, frozenset[str]] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    is_first: bool = True

    @classmethod
    def sign_up(cls, database: Database, profile: str = "typing_agent", **agreement: Any) -> Self:
        """A new district with an agreement; `agreement` as in `sync.districts.Agreement`. By default it has no brakes."""
        district = cls(database, f"district{next(_numbers)}")
        settings = {"auto_initial": True, "brakes": NO_BRAKES} | agreement.pop("settings", {})
        district.agree(profile=profile, settings=settings, **agreement)
        return district

    def agree(self, *, profile: str | None = None, **agreement: Any) -> None:
        """Record the agreement; values that are not named stay."""
        with self.database.engine.begin() as connection:
            profile = profile or find_district(connection, self.clever_id).profile or ""
            record_agreement(connection, Agreement(self.clever_id, "District", profile, "d.example", **agreement))

    @property
    def profile(self) -> str | None:
        with self.database.engine.connect() as connection:
            return find_district(connection, self.clever_id).profile

    @property
    def district_id(self) -> int:
        with self.database.engine.connect() as connection:
            return find_district(connection, self.clever_id).district_id

    def sync(self, snapshot: Snapshot, *, page_size: int = 100) -> SyncReport:
        """Sync the snapshot, a minute after the last sync or decision."""
        now = self.clock.tick()
        source = recorded(snapshot, page_size)
        return run_sync(self.database, SETTINGS, SyncRequest(self.clever_id), open_source=source, clock=lambda _: now)

    def plan(self, snapshot: Snapshot, *, page_size: int = 100) -> "FullPlan":
        """The result of a full plan. Nothing is written, and the clock does not move."""
        kept = [name for name in known_tables() if name.startswith(("staging.", "reconcile.")) and name not in NOT_COMPARED]

        def read(context: PlanningContext, plan: Plan) -> FullPlan:
            found = context.connection.exec_driver_sql(f"select rule, resource, clever_id from {FOUND}")
            stored = {name: _kept(context.connection, local_name(name), name) for name in kept}
            return FullPlan(plan.as_counts(), stored, sorted(tuple(row) for row in found))

        now = self.clock.now + timedelta(seconds=1)
        source = recorded(snapshot, page_size)
        return plan_sync(self.database, SETTINGS, self.clever_id, read, open_source=source, clock=lambda _: now)

    def kept(self, names: Iterable[str]) -> dict[str, list[Row]]:
        """The rows of these tables of `staging` and `reconcile` after the last sync."""
        district_id = self.district_id
        with self.database.engine.connect() as connection:
            return {name: _kept(connection, name, name, district_id) for name in names}

    def findings(self) -> list[tuple[str, ...]]:
        """`ops.findings`: rule, resource and Clever id. All are of the last applied sync."""
        last = """
            select sync_id from ops.syncs where district_id = :district and status in ('successful', 'held') order by sync_id desc limit 1
        """
        found = self.execute(f"select *, sync_id = ({last}) as is_last from ops.findings where district_id = :district")
        assert all(row["is_last"] for row in found)
        return sorted((row["rule"], row["resource"], row["clever_id"]) for row in found)

    def forget(self) -> None:
        """Delete all digests and the state of the last sync, so that the next sync decodes all records and makes a full plan."""
        with self.database.engine.begin() as connection:
            for table in ("schools", "terms", "courses", "sections", "users"):
                connection.execute(sa.text(f"update staging.{table} set digest = null where district_id = :d"), {"d": self.district_id})
            connection.execute(sa.text("delete from ops.settled where district_id = :d"), {"d": self.district_id})

    def quarantine(self, sync_id: int) -> list[tuple[str, ...]]:
        """The findings of a sync, with their records."""
        query = sa.text("select resource, clever_id, rule, severity from ops.quarantine where sync_id = :sync order by 1, 2, 3")
        with self.database.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(query, {"sync": sync_id})]

    def reasons(self) -> dict[str, Reason]:
        """The decision of the last plan about each person of the snapshot, by Clever id (`reconcile.user_matches`)."""
        query = "select clever_id, decision, rule, username_rule from reconcile.user_matches where district_id = :district"
        return {row["clever_id"]: Reason(row["decision"], row["rule"], row["username_rule"]) for row in self.execute(query)}

    def removed(self) -> dict[tuple[str, Id], str]:
        """Why the last plan soft-deletes each row, or would without brakes, by (table, id of the row) (`reconcile.soft_deletes`)."""
        query = "select entity, entity_id, reason from reconcile.soft_deletes where district_id = :district"
        return {(row["entity"], row["entity_id"]): row["reason"] for row in self.execute(query)}

    def agree_on(self, kind: Kind, first: int = 0, last: int = 0, **limits: float) -> None:
        """Add a window. Its nights are counted from tonight; windows with one of them are cancelled."""
        self.windows = agree_on(self.database, self.district_id, self.windows, kind, first, last, limits, self.clock.now)

    def rules(self) -> Rules:
        """The agreement in the terms of the model, as the next sync finds it."""
        window = on_at(self.windows, self.clock.now + timedelta(minutes=1))
        with self.database.engine.connect() as connection:
            district = find_district(connection, self.clever_id)
            assert district.rules is not None
            schools = connection.execute(
                sa.text("select name, clever_id, licenses from app.agreed_schools where district_id = :d"), {"d": district.district_id}
            )
            return Rules(
                self.clever_id,
                student_email=district.rules.student_email,
                student_multi_school=district.rules.student_multi_school,
                login_methods=district.rules.login_methods,
                keep_classroom_names=district.rules.keep_classroom_names,
                agreed_schools=[Agreed(row.name, row.clever_id, row.licenses) for row in schools],
                agreed_grades=district.row["agreed_grades"] or (),
                licenses=district.row["licenses"],
                over_license_policy=district.row["over_license_policy"],
                limits=_limits(in_rollover(district.rules.brakes, window)),
                window=window.kind if window is not None else None,
                auto_initial=district.rules.auto_initial,
            )

    def rows(self) -> Rows:
        """Every row of the district in `app`."""
        with self.database.engine.connect() as connection:
            district_id = find_district(connection, self.clever_id).district_id
            return {table: _rows(connection, table, district_id) for table in ENTITY_ID}

    def state(self) -> State:
        """The district in the terms of the model."""
        return state_of(self.rows())

    def execute(self, statement: str, **values: Any) -> Sequence[Row]:
        """Run a statement that is not part of a sync; `:district` is the id of this district. Returns its rows, if any."""
        with self.database.engine.begin() as connection:
            district_id = find_district(connection, self.clever_id).district_id
            result = connection.execute(sa.text(statement), {"district": district_id, **values})
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    def holds(self) -> dict[int, Hold]:
        """Every hold of the district, by its number."""
        found = self.execute("select * from ops.holds where district_id = :district order by hold_id")
        return {
            row["hold_id"]: Hold(
                (row["kind"], row["school_id"], row["role"], row["counts"].get("collection")),
                self.hold_acts.get(row["hold_id"], frozenset()),
                row["status"],
                row["expires_at"],
            )
            for row in found
        }

    def approve(self, hold_id: int) -> None:
        """Support approves a hold."""
        with self.database.engine.begin() as connection:
            holds.approve(connection, [hold_id], holds.Decider("support"), now=self.clock.tick())

    def reject(self, hold_id: int) -> None:
        """Support rejects a hold."""
        with self.database.engine.begin() as connection:
            holds.reject(connection, [hold_id], holds.Decider("support"), now=self.clock.tick())

    def changes(self, sync_id: int) -> Sequence[Row]:
        """`ops.changes` of one sync."""
        return self.execute("select entity, entity_id, action, before, after from ops.changes where sync_id = :sync", sync=sync_id)


def _rows(connection: Connection, table: str, district_id: int) -> dict[str, Row]:
    statement = f"select *, xmin::text as xmin, ctid::text as ctid from app.{table} where district_id = :d"
    found = connection.execute(sa.text(statement), {"d": district_id}).mappings()
    return {":".join("" if row[part] is None else str(row[part]) for part in ENTITY_ID[table]): dict(row) for row in found}


def _limits(brakes: Brakes) -> dict[tuple[str, str | None], tuple[int, Fraction]]:
    """Floor and share by kind of brake, and by role where roles have their own, as the district's settings have them."""
    named: dict[tuple[str, str | None], str] = {
        (kind.name, role): limit for kind in KINDS.values() for role, limit in kind.limits_of_roles.items()
    }
    named |= {(kind.name, None): kind.limit for kind in KINDS.values() if kind.limit is not None}
    return {each: (getattr(brakes, f"{limit}_floor"), Fraction(str(getattr(brakes, f"{limit}_share")))) for each, limit in named.items()}


def _kept(connection: Connection, table: str, name: str, district_id: int | None = None) -> list[Row]:
    where = "" if district_id is None else f"where district_id = {district_id}"
    found = connection.execute(sa.text(f"select {', '.join(known_tables()[name])} from {table} {where}")).mappings()
    # Each plan draws new ids for new users.
    rows = [{**row, "user_id": "new"} if row.get("decision") == "create" and row["user_id"] else dict(row) for row in found]
    return sorted(rows, key=str)


def state_of(rows: Rows, before: Rows | None = None) -> State:
    """Rows in the terms of the model. The key of a row that is not in `before` is its Clever id instead of its number, as in the model."""
    new: dict[Any, Id] = {}

    def identity(table: str, row: Row) -> tuple[Any, ...]:
        return tuple(new.get((part, row[part]), row[part]) for part in ENTITY_ID[table])

    def values(table: str, kind: type[Any]) -> dict[Any, Any]:
        found = {}
        for row in rows[table].values():
            columns = {each.name: row[each.name] for each in fields(kind)}
            if "login_methods" in columns:
                columns["login_methods"] = tuple(columns["login_methods"])
            if columns.get("school_id") is not None:
                columns["school_id"] = new.get(("school_id", columns["school_id"]), columns["school_id"])
            key = identity(table, row)
            found[key if len(key) > 1 else key[0]] = kind(**columns)
        return found

    if before is not None:
        for table in ("schools", "classrooms", "users"):
            (part,) = ENTITY_ID[table]
            new |= {
                (part, row[part]): f"new:{row['clever_id']}" for entity_id, row in rows[table].items() if entity_id not in before[table]
            }
    return State(
        values("schools", School),
        values("classrooms", Classroom),
        values("users", User),
        values("user_roles", Role),
        values("enrollments", Enrollment),
    )


def differences(expected: State, actual: State) -> list[str]:
    """The differences between two states, one line each, for people who read a failed test."""
    lines = []
    for table, rows in vars(expected).items():
        others = getattr(actual, table)
        for key in sorted({*rows, *others}, key=str):
            ours, theirs = rows.get(key), others.get(key)
            if ours is None or theirs is None:
                lines.append(f"{table} {key}: {'not expected' if ours is None else 'missing'}: {ours or theirs}")
            elif ours != theirs:
                unequal = {name: (value, asdict(theirs)[name]) for name, value in asdict(ours).items() if value != asdict(theirs)[name]}
                lines.append(f"{table} {key}: " + ", ".join(f"{name} should be {a!r}, is {b!r}" for name, (a, b) in unequal.items()))
    return lines


@contextmanager
def leaves_unchanged(*districts: LiveDistrict) -> Iterator[None]:
    """Asserts that the body of the `with` writes no row of these districts, not even with the same values."""
    before = [district.rows() for district in districts]
    yield
    assert [district.rows() for district in districts] == before
