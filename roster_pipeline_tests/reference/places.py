"""Schools in one pass: which are rostered, which are left unchanged, and what the agreement means (R4.6, R4.8, R6.1, R6.4, R6.5).

Does not belong here: classrooms, people and everything about them (`one_pass.py`).
"""

from collections.abc import Mapping, Set
from dataclasses import replace
from datetime import datetime

from roster_pipeline_tests.reference.brakes import Held
from roster_pipeline_tests.reference.readable import WALKS, school_use, section_use, unreadable_collections
from roster_pipeline_tests.reference.records import clean, key, read_people, read_places, read_term
from roster_pipeline_tests.reference.rows import (
    Agreed,
    Id,
    Rules,
    School,
    Snapshot,
    State,
)


class Places:
    """A pass over a snapshot, with its schools."""

    def __init__(self, state: State, snapshot: Snapshot, rules: Rules, now: datetime, held: Held) -> None:
        self.before, self.rules, self.now, self.held = state, rules, now, held
        self.after = State(dict(state.schools), dict(state.classrooms), dict(state.users), dict(state.roles), dict(state.enrollments))
        self.school_records, self.quarantined_schools = read_places(snapshot.schools, rules.clever_id, school_use)
        self.section_records, self.quarantined_sections = read_places(snapshot.sections, rules.clever_id, section_use)
        terms, _ = read_places(snapshot.terms, rules.clever_id, lambda _: "good")
        self.terms = {each: read_term(record) for each, record in terms.items()}
        self.people, self.quarantined_people = read_people(snapshot, rules)
        self.unreadable = unreadable_collections(snapshot)
        self.unreadable_roles = {"school_admin" if role == "staff" else role for each, role in WALKS.items() if each in self.unreadable}

    def roster_schools(self) -> None:
        """R6.1, R6.4. Sets `open_schools`: the schools at which people and classrooms are rostered, by Clever id.

        `unchanged_schools` are quarantined: they and everything in them are left unchanged. A deleted school is not among them, and is not
        restored.
        """
        names = {clever_id: clean(record["name"]) or "" for clever_id, record in self.school_records.items()}
        inside = {clever_id for clever_id, name in names.items() if self._agreements(clever_id, names) is not None}
        self.outside_schools = set(names) - inside
        self.open_schools: dict[str, Id] = {}
        self.school_licenses: dict[Id, int] = {}
        schools = self.before.schools.items()
        self.unchanged_schools = {
            each
            for each, row in schools
            if row.deleted_at is None
            and (row.clever_id in self.quarantined_schools or ("schools" in self.unreadable and row.clever_id not in self.school_records))
        }
        ids = {row.clever_id: school_id for school_id, row in self.before.schools.items() if row.clever_id}
        self.relinked_schools = self._relink_schools(names, names.keys() | self.quarantined_schools | self._unshown_schools(), inside)
        ids |= self.relinked_schools
        self.held_schools = self.held.schools | (set(self.relinked_schools.values()) if self.held.relinks else set())
        for school_id, row in self.before.schools.items():
            if not row.protected and school_id not in self.unchanged_schools | self.held_schools and not self.held.everything:
                self.after.schools[school_id] = replace(row, deleted_at=row.deleted_at or self.now)
        for clever_id in inside:
            school_id = ids.get(clever_id, f"new:{clever_id}")
            old = self.before.schools.get(school_id)
            if old is not None and old.protected and old.deleted_at is not None:
                continue
            if (old is None or not old.protected) and school_id not in self.held_schools:
                self.after.schools[school_id] = School(clever_id, names[clever_id], "clever", False, None)
            self.open_schools[clever_id] = school_id
            numbers = [each.licenses for each in self._agreements(clever_id, names) or () if each.licenses is not None]
            if numbers:
                self.school_licenses[school_id] = min(numbers)

    def _unshown_schools(self) -> set[str]:
        """Schools that the pull may have in an element that cannot be read (R4.8)."""
        active = {row.clever_id for row in self.before.schools.values() if row.clever_id and row.deleted_at is None}
        return active - self.school_records.keys() if "schools" in self.unreadable else set()

    def _relink_schools(self, names: Mapping[str, str], present: Set[str], inside: Set[str]) -> dict[str, Id]:
        """R6.5: the existing school of each new Clever id, where nothing else has its name."""
        linked = {row.clever_id for row in self.before.schools.values()}
        missing = {
            each: row for each, row in self.before.schools.items() if row.clever_id and row.clever_id not in present and not row.protected
        }
        found: dict[str, Id] = {}
        for clever_id in inside - linked:
            rivals = [each for each, name in names.items() if each not in linked and key(name) == key(names[clever_id])]
            old = [each for each, row in missing.items() if key(row.name) == key(names[clever_id])]
            old = [each for each in old if missing[each].deleted_at is None] or old
            if len(rivals) == len(old) == 1:
                found[clever_id] = old[0]
        return found

    def _unchanged_by_id(self) -> dict[str, Id]:
        """The schools that are left unchanged, by the Clever id that the snapshot has for them."""
        new = {school_id: clever_id for clever_id, school_id in self.relinked_schools.items()}
        named = {new.get(each, self.before.schools[each].clever_id): each for each in self.unchanged_schools}
        return {clever_id: school_id for clever_id, school_id in named.items() if clever_id is not None}

    def _agreements(self, clever_id: str, shared: Mapping[str, str]) -> list[Agreed] | None:
        """The entries of the agreement that mean a school. None: it is outside."""
        agreed = self.rules.agreed_schools
        found = [each for each in agreed if clever_id in self._meanings(each, shared)]
        return found if found or not agreed else None

    def _meanings(self, entry: Agreed, shared: Mapping[str, str]) -> set[str]:
        """The schools that an entry of the agreement means: by the kept Clever id, by a Clever id as name, or by name (R6.4)."""
        present = self.school_records.keys() | self.quarantined_schools | self._unshown_schools()
        by_id = [{each for each in present if each == entry.clever_id}, {each for each in present if key(each) == key(entry.name)}]
        return next((each for each in by_id if each), {each for each, name in shared.items() if key(name) == key(entry.name)})

    def agreement_after(self) -> list[Agreed]:
        """The agreement with the Clever ids that are kept: of an entry that means one school."""
        names = {clever_id: clean(record["name"]) or "" for clever_id, record in self.school_records.items()}
        found = []
        for entry in self.rules.agreed_schools:
            meant = self._meanings(entry, names)
            kept = entry.clever_id if not meant else next(iter(meant)) if len(meant) == 1 else None
            found.append(replace(entry, clever_id=kept))
        return found
