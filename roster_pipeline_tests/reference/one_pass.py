"""One pass over a snapshot: what each person, school, classroom, role and enrollment becomes if these holds hold.

Belongs here: SPEC 3-9 from the rows of `app` and a snapshot to the rows of `app`, person by person. Does not belong here: which passes a
sync makes, and its holds (`model.py`).
"""

from dataclasses import replace
from datetime import date

from roster_pipeline_tests.reference.brakes import active_roles, stays
from roster_pipeline_tests.reference.matching import Matches, add_those_without_a_name, find_duplicates, give_usernames, match
from roster_pipeline_tests.reference.places import Places
from roster_pipeline_tests.reference.records import Person, clean, key
from roster_pipeline_tests.reference.rows import (
    Classroom,
    Enrollment,
    Id,
    Role,
    User,
)
from roster_pipeline_tests.reference.seats import Student, hand_out, has_seat
from roster_pipeline_tests.reference.windows import keep_losses


class Pass(Places):
    """One pass: everything that a sync does, except what is held."""

    def run(self) -> None:
        self.roster_schools()
        self.recognise_people()
        self.hold_back()
        self.roster_people()
        self.roster_roles()
        self.roster_classrooms()
        self.roster_enrollments()
        self.defer()

    def recognise_people(self) -> None:
        """R5.1-R5.5, R6.4, before brakes are applied. Sets `candidates`: the people to be rostered, by Clever id.

        `unchanged` are the users that are left unchanged: protected ones, and those of quarantined records.
        """
        users = self.before.users
        ids = {row.clever_id: user_id for user_id, row in users.items() if row.clever_id is not None}
        # R4.8: users that the pull does not show, but may have in an element that cannot be read.
        unshown = {
            each
            for each, row in users.items()
            if row.deleted_at is None and {role for role, _ in active_roles(self.before, each)} & self.unreadable_roles
        } - {user_id for clever_id, user_id in ids.items() if clever_id in set(self.people) | self.quarantined_people}
        self.unshown_people = {each for each, user_id in ids.items() if user_id in unshown}
        shown = set(self.people) | self.quarantined_people
        # People whose only school is quarantined are neither removed nor rostered (R4.6).
        self.waiting = waiting = {each for each, person in self.people.items() if self._is_waiting(person)}
        self.protected = {user_id for user_id, row in users.items() if row.protected}
        left_alone = self.quarantined_people | self.unshown_people | waiting
        self.unchanged = self.protected | {ids[each] for each in left_alone if each in ids}
        nameless = add_those_without_a_name(self.before, {each: ids.get(each) for each in self.people}, self.unchanged)
        self.nameless = frozenset(nameless)

        self.known = known = {
            each: person for each, person in self.people.items() if each not in waiting | nameless and self._roles_of(person)
        }
        families = {each: self._family_of(person) for each, person in self.people.items()}
        # A record of somebody who is not rostered stands for nobody who could be enrolled.
        stays = {each for each, at in ids.items() if users[at].protected or users[at].barred} | waiting | nameless | set(known)
        linked = [each for each in self.people if each in ids and each in stays]
        self.duplicates = find_duplicates(self.people, families, linked, [each for each in known if each not in ids])
        for each in self.duplicates:
            del known[each]
        self.matches = match(self.before, known, families, shown, self.unreadable_roles)
        old = {each for each in self.matches.waiting.values() if users[each].deleted_at is None}
        self.unchanged |= old | {each for each in unshown if users[each].clever_id is None} - set(self.matches.adopted.values())
        self.barred = {each for each in known if (user_id := self.matches.user_of(each)) is not None and users[user_id].barred}
        self.candidates = {
            each: person
            for each, person in known.items()
            if each not in self.barred and ids.get(each) not in self.protected and each not in self.matches.waiting
        }
        self.new_admins = {
            (each, role)
            for each, person in self.candidates.items()
            for role in ("district_admin", "school_admin")
            if role in {given for given, _ in self._roles_of(person)} - {present for present, _ in self._active_roles_of(each)}
        }
        # Protected people are enrolled like others, with the roles that they have (R8.1).
        self.members: dict[str, tuple[Id, set[tuple[str, Id | None]]]] = {
            each: (ids[each], active_roles(self.before, ids[each]))
            for each in set(self.people) - waiting - nameless
            if ids.get(each) in self.protected and users[ids[each]].deleted_at is None
        }

    def _listed(self, person: Person) -> set[tuple[str, str | None]]:
        """The roles that Clever lists, without the role of a student whose grade is outside the agreement (R6.4)."""
        listed = {each for each in person.listed if each[0] != "student" or self.is_grade_agreed(person)}
        if self.rules.student_multi_school:
            return listed
        first = next((each for each in person.student_schools if each in self._present_schools()), None)
        return {(role, school) for role, school in listed if role != "student" or school == first}

    def _present_schools(self) -> dict[str, Id]:
        """The schools that are shared and agreed, and those that are left unchanged, by Clever id (R6.3)."""
        return self.open_schools | self._unchanged_by_id()

    def is_grade_agreed(self, person: Person) -> bool:
        """R6.4; only students have a grade."""
        grade = person.values["grade"]
        return not self.rules.agreed_grades or grade is None or grade in self.rules.agreed_grades

    def _family_of(self, person: Person) -> str:
        """Student or staff, by the roles at rostered and unchanged schools. A person with both is staff."""
        unchanged = self._unchanged_by_id()
        roles = {role for role, school in self._listed(person) if school is None or school in self.open_schools or school in unchanged}
        return "student" if roles == {"student"} else "staff"

    def _is_waiting(self, person: Person) -> bool:
        unchanged = self._unchanged_by_id()
        return not self._roles_of(person) and any(school in unchanged for _, school in self._listed(person))

    def _roles_of(self, person: Person) -> set[tuple[str, Id | None]]:
        """The roles that Clever lists at open schools, and present roles at schools that are left unchanged."""
        listed = {(role, self.open_schools.get(school) if school else None) for role, school in self._listed(person)}
        roles = {(role, school) for role, school in listed if school is not None or role == "district_admin"}
        return roles | self._unchanged_roles(person)

    def _unchanged_roles(self, person: Person) -> set[tuple[str, Id | None]]:
        holders = [each for each, row in self.before.users.items() if row.clever_id == person.clever_id and row.deleted_at is None]
        return {(role, at) for each in holders for role, at in active_roles(self.before, each) if at in self.unchanged_schools}

    def _is_active(self, user_id: Id | None) -> bool:
        return user_id is not None and self.before.users[user_id].deleted_at is None

    def _active_roles_of(self, clever_id: str) -> set[tuple[str, Id | None]]:
        """The present roles of a matched person; none if the user is new or deleted."""
        user_id = self.matches.user_of(clever_id)
        return active_roles(self.before, user_id) if user_id is not None and self._is_active(user_id) else set()

    def hold_back(self) -> None:
        """R7.4. Sets `rostered`: the people who are written; `granted`: their roles; `stuck`: the users that are held."""
        self.unchanged_schools |= self.held_schools
        self.open_schools = {clever_id: each for clever_id, each in self.open_schools.items() if each not in self.held_schools}
        self.stuck: set[Id] = set(self.held.users | self.held.deferred)
        self.granted: dict[str, set[tuple[str, Id | None]]] = {}
        if self.held.relinks:
            self.stuck |= set(self.matches.relinked.values())
        self.held_school = {clever_id: each for each in self.held.present if (clever_id := self.before.users[each].clever_id)}
        self.matches.linked |= self.held_school  # Before the brakes they had no role.
        self.candidates |= {each: self.people[each] for each in self.held_school}
        for clever_id, person in self.candidates.items():
            user_id = self.matches.user_of(clever_id)
            if user_id in self.stuck:
                continue
            roles = self._roles_of(person)
            if withheld := self._held_admin_roles(clever_id):
                # An active user keeps the present roles; a new one does not get this role.
                roles = (
                    self._active_roles_of(clever_id) if self._is_active(user_id) else {each for each in roles if each[0] not in withheld}
                )
            if roles:
                self.granted[clever_id] = roles
            elif user_id is not None and self._is_active(user_id):
                self.stuck.add(user_id)
        self.with_role = set(self.granted)
        named = {each: self.matches.user_of(each) for each in self.granted}
        self.reserved = self.unchanged | self.stuck | self.held.identities
        nameless = add_those_without_a_name(self.before, named, self.reserved)
        self.stuck |= {user_id for each in nameless if (user_id := named[each]) is not None} | (self.stuck - self.unchanged)
        self.unchanged |= self.stuck
        left_out = nameless | self.held.beyond
        self.granted = {each: roles for each, roles in self.granted.items() if each not in left_out}
        self.rostered = {each: self._as_named(self.candidates[each]) for each in self.granted}

    def _held_admin_roles(self, clever_id: str) -> set[str]:
        return {role for each, role in self.new_admins if each == clever_id and role in self.held.admins}

    @property
    def relinks(self) -> set[str]:
        """The relinks of users and schools, as acts of a brake."""
        schools = {each for each, school in self.relinked_schools.items() if school not in self.held_schools}
        users = {f"relink users {each}" for each in self.taken_over.relinked}
        return users | {f"relink schools {each}" for each in schools}

    @property
    def admitted(self) -> set[tuple[str, str]]:
        """The new admins who are rostered in that role."""
        return {(each, role) for each, role in self.new_admins if role in {given for given, _ in self.granted.get(each, ())}}

    def _as_named(self, person: Person) -> Person:
        """While a new admin role or a change of names is held, an active user keeps the username (R7.4)."""
        held_roles, user_id = self._held_admin_roles(person.clever_id), self.matches.user_of(person.clever_id)
        theirs = self.before.users[user_id].username if user_id is not None and self._is_active(user_id) else None
        if theirs and (held_roles or user_id in self.held.identities):
            return replace(person, username=theirs)
        return replace(person, username=person.plain_username) if held_roles and person.admin_roles <= held_roles else person

    def roster_people(self) -> None:
        """R5.4, R5.5, R9. Sets `beyond`: the students who would be created or restored without a seat."""
        users = self.before.users
        self.names = give_usernames(self.before, self.rostered, self.matches, self.unchanged)
        self.user_ids: dict[str, Id] = {each: self.matches.user_of(each) or f"new:{each}" for each in self.rostered}
        self.members |= {each: (self.user_ids[each], self.granted[each]) for each in self.rostered}
        relinked = {each: user_id for each, user_id in self.matches.relinked.items() if user_id not in self.stuck}
        self.taken_over = Matches(
            adopted={each: user_id for each, user_id in self.matches.adopted.items() if each in self.rostered},
            relinked={each: user_id for each, user_id in relinked.items() if each in self.rostered or each in self.barred},
        )
        for user_id, row in users.items():
            if user_id not in self.unchanged:
                self.after.users[user_id] = replace(row, deleted_at=row.deleted_at or self.now)
        seated = self._seated()
        for clever_id, (username, _) in self.names.items():
            user_id = self.user_ids[clever_id]
            row = self._user_row(self.rostered[clever_id], username, users.get(user_id))
            if user_id in self.held.identities:
                old = users[user_id]
                row = replace(row, username=old.username, login_methods=old.login_methods)
                row = replace(row, first_name=old.first_name, middle_name=old.middle_name, last_name=old.last_name)
            status = ("licensed" if user_id in seated else "waiting") if self._is_student(clever_id) else None
            self.after.users[user_id] = replace(row, license_status=status)
        for clever_id in self.barred & set(self.taken_over.relinked):  # R8.3
            user_id = self.matches.relinked[clever_id]
            self.after.users[user_id] = replace(users[user_id], clever_id=clever_id)

    def _is_student(self, clever_id: str) -> bool:
        return any(role == "student" for role, _ in self.granted[clever_id])

    def _seated(self) -> set[Id]:
        """R9.2: the rostered users who are licensed."""
        users = self.before.users
        students = [
            Student(
                user_id=self.user_ids[each],
                clever_id=each,
                school=self._school_of(person),
                created_at=old.created_at if (old := users.get(self.user_ids[each])) else self.now,
                has_seat=has_seat(old),
                is_unchanged=False,
            )
            for each, person in self.rostered.items()
            if self._is_student(each)
        ]
        for user_id in self.unchanged:
            user = users[user_id]
            if user.deleted_at is None and self._is_student_in_scope(user_id):
                # An imported student has a seat unless the account says `waiting`.
                students.append(
                    Student(user_id, user.clever_id, user.school_id, user.created_at, user.license_status != "waiting", is_unchanged=True)
                )
        if self.rules.over_license_policy == "warn":
            seated = {student.user_id for student in students}
        else:
            seated = hand_out(students, self.rules.licenses, self.school_licenses)
        let_in = {self.user_ids[each] for each in self.held.let_in}
        self.beyond = {
            each
            for each, user_id in self.user_ids.items()
            if self._is_student(each) and user_id not in seated and not self._is_active(self.matches.user_of(each))
        }
        return seated | let_in

    def _is_student_in_scope(self, user_id: Id) -> bool:
        """R9.1: whether one of the schools is not outside the agreement."""
        at = [school for role, school in active_roles(self.before, user_id) if role == "student"]
        return any(school is not None and self.before.schools[school].clever_id not in self.outside_schools for school in at)

    def _school_of(self, person: Person) -> Id | None:
        """The first school of a student, else the one that Clever names, if it is rostered or left unchanged."""
        present = self._present_schools()
        of_student = person.student_schools if self.is_grade_agreed(person) else ()
        return next((present[each] for each in (*of_student, person.primary) if each in present), None)

    def _user_row(self, person: Person, username: str, old: User | None) -> User:
        methods = ["clever"]
        if key(username) != key(person.clever_id):
            methods += [each for each in self.rules.login_methods if each != "clever" and (each != "google" or person.values["email"])]
        return User(
            **person.values,
            clever_id=person.clever_id,
            username=username,
            school_id=self._school_of(person),
            source="clever",
            protected=False,
            do_not_restore=old.do_not_restore if old else False,
            license_status=None,
            login_methods=tuple(methods),
            created_at=old.created_at if old else self.now,
            deleted_at=None,
        )

    def roster_roles(self) -> None:
        """R5.8: rostered roles are added and ended, the others stay."""
        for (user_id, role, school), row in self.before.roles.items():
            may_end = row.source == "clever" and school not in self.unchanged_schools and not self.held.everything
            if user_id not in self.unchanged - self.held.deferred and may_end:
                self.after.roles[user_id, role, school] = replace(row, deleted_at=row.deleted_at or self.now)
        for clever_id in self.rostered:
            user_id = self.user_ids[clever_id]
            for role, school in self.granted[clever_id]:
                old = self.before.roles.get((user_id, role, school))
                if school not in self.unchanged_schools and (old is None or old.source == "clever" or old.deleted_at is not None):
                    self.after.roles[user_id, role, school] = Role("clever", None)

    def roster_classrooms(self) -> None:
        """R6.1. Sets `open_classrooms`: the classrooms whose members are updated from Clever, by Clever id."""
        names = {clever_id: clean(record["name"]) or "" for clever_id, record in self.section_records.items()}
        quarantined = self.quarantined_sections
        ids = {row.clever_id: each for each, row in self.before.classrooms.items() if row.clever_id}
        unchanged_schools = self._unchanged_by_id()
        in_unchanged_schools = {each for each, section in self.section_records.items() if section.get("school") in unchanged_schools}
        self.unchanged_classrooms = {
            classroom_id
            for classroom_id, row in self.before.classrooms.items()
            if row.protected
            or (row.clever_id is not None and row.clever_id in quarantined | in_unchanged_schools)
            or (row.school_id in self.unchanged_schools and row.deleted_at is None)
            or ("sections" in self.unreadable and row.clever_id not in self.section_records and row.deleted_at is None)
            or classroom_id in self.held.classrooms
        }
        # A member is held: the row is left unchanged, while other members are added and removed (R7.4).
        held = (self.stuck - self.held.deferred) | self.held.present
        with_held = {at for (at, user_id, _), row in self.before.enrollments.items() if user_id in held and row.deleted_at is None}
        for classroom_id, row in self.before.classrooms.items():
            if classroom_id not in self.unchanged_classrooms | with_held and not self.held.everything:
                self.after.classrooms[classroom_id] = replace(row, deleted_at=row.deleted_at or self.now)
        self.open_classrooms: dict[str, Id] = {}
        for clever_id, name in names.items():
            school = self.open_schools.get(self.section_records[clever_id].get("school") or "")
            classroom_id = ids.get(clever_id, f"new:{clever_id}")
            if school is not None and classroom_id not in self.unchanged_classrooms:
                if classroom_id not in with_held:
                    old, term = self.before.classrooms.get(classroom_id), self.section_records[clever_id].get("term_id")
                    is_renamed = self.rules.keep_classroom_names and old is not None and old.clever_name not in (None, old.name)
                    given = old.name if old is not None and is_renamed else name
                    about_term = self.about_term(term or "", old)
                    self.after.classrooms[classroom_id] = Classroom(clever_id, given, name, *about_term, school, "clever", False, None)
                self.open_classrooms[clever_id] = classroom_id

    def about_term(self, term: str, old: Classroom | None) -> tuple[str | None, date | None, date | None]:
        """Name, first and last day of a section's term. A term that may be the one without a readable id is left unchanged (R4.8)."""
        if term and term not in self.terms and "terms" in self.unreadable and old is not None:
            return old.term_name, old.starts_on, old.ends_on
        return self.terms.get(term, (None, None, None))

    def roster_enrollments(self) -> None:
        """R4.7, R6.2, R6.3."""
        staying = (self.unchanged - self.protected - self.held.deferred) | self.held.present
        without_list = {
            at
            for each, at in self.open_classrooms.items()
            if self.section_records[each].get("teachers") is None and not self.section_records[each].get("teacher")
        }
        for (classroom_id, user_id, role), row in self.before.enrollments.items():
            if classroom_id in without_list and role == "teacher" and self._still_teaches(user_id):
                continue
            if role in self.held.enrollments and stays(self.before, self.held.leaving, classroom_id, user_id):
                continue
            if classroom_id not in self.unchanged_classrooms and user_id not in staying and not self.held.everything:
                self.after.enrollments[classroom_id, user_id, role] = replace(row, deleted_at=row.deleted_at or self.now)
        of_linked = {each: self.members[other] for each, other in self.duplicates.items() if other in self.members}  # R5.10
        members = self.members | of_linked
        for clever_id, classroom_id in self.open_classrooms.items():
            section = self.section_records[clever_id]
            school = self.open_schools[section["school"]]
            teachers = section.get("teachers") or [section.get("teacher")]
            for member in section["students"]:
                user_id, roles = members.get(member, (0, set()))
                at = {school for role, school in roles if role == "student"}
                if at and (self.rules.student_multi_school or school in at):
                    self.after.enrollments[classroom_id, user_id, "student"] = Enrollment(False, "clever", None)
            for member in reversed(teachers):  # The first one last: a section can list both records of one teacher.
                user_id, roles = members.get(member, (0, set()))
                if any(role == "teacher" for role, _ in roles):
                    self.after.enrollments[classroom_id, user_id, "teacher"] = Enrollment(member == teachers[0], "clever", None)

    def defer(self) -> None:
        """R14.3: whatever would end stays as it is. Sets `deferred`: the number of roles and enrollments that stay."""
        self.deferred = keep_losses(self.before, self.after) if self.held.defers else 0

    def _still_teaches(self, user_id: Id) -> bool:
        """Whether a user is active and has the role of a teacher after this sync."""
        return self.after.users[user_id].deleted_at is None and any(role == "teacher" for role, _ in active_roles(self.after, user_id))
