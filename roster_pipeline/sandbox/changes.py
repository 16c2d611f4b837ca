"""Changes that consist of many edits: a plausible night, and the rollover to a new school year, in several variants.

Belongs here: which edits are made together, and to which and how many records. Does not belong here: the edits themselves (`edits.py`).
"""

from collections.abc import Mapping, Sequence

from roster_pipeline.errors import UsageError
from roster_pipeline.sandbox.district import Record, schools_of
from roster_pipeline.sandbox.draw import Draw
from roster_pipeline.sandbox.edits import Edits
from roster_pipeline.sandbox.names import FIRST, LAST
from roster_pipeline.sandbox.people import GRADES
from roster_pipeline.sandbox.sections import Roll, SchoolYear

_SECTIONS_OF_A_NEWCOMER = 8

# How a new school year arrives at Clever: the steps of each variant, in order, with what is there after each.
ROLLOVERS: Mapping[str, Sequence[str]] = {
    "at_once": ("everything in one load",),
    "empty_july": ("no terms, courses and sections; everybody is still there", "everything in one load"),
    "half_loaded": ("the new year, but only half of the schools and of their people", "the other half"),
    "paused": ("nothing changes, because the district has paused its syncs with Clever", "everything in one load"),
}


class Changes(Edits):
    """Every change that can be made to one district: the single edits of `Edits`, and those below."""

    def night_of_changes(self, seed: int) -> dict[str, int]:
        """Makes the changes of a plausible night, to about 1 % of the records. The same seed makes the same changes to the same data.

        Every kind of change happens at least once, if there is a person for it. Only students that were removed before can return.

        Returns:
            How many students were new, left, returned with their old ids, were renamed, moved to another school or got a new id, how many
            teachers were new, and how many sections got other co-teachers.
        """
        draw = Draw(seed)
        district = self.district
        with self._editing():
            schools, sections = sorted(district.records["schools"]), sorted(district.records["sections"])
            teachers = sorted(user for user, roles in district.roles.items() if "teacher" in roles)
            students = sorted(user for user, roles in district.roles.items() if "student" in roles)
            shuffled = iter(draw.sample(students, len(students)))

            def some(share: float) -> list[str]:
                return [user for _, user in zip(range(_at_least_one(share * len(students))), shuffled, strict=False)]

            back = sorted(district.removed)[: _at_least_one(0.001 * len(students))]
            leavers, renamed, movers = some(0.003), some(0.002), some(0.002)
            self.restore_users(back)
            self.remove_users(leavers)
            for user in renamed:
                self.rename(user, last=draw.pick(LAST))
            self.move_students({user: draw.pick(schools) for user in movers})
            new_ids = self.re_id(some(0.0005))
            new = [
                self.add_user(
                    "student",
                    draw.pick(FIRST),
                    draw.pick(LAST),
                    schools=[draw.pick(schools)],
                    username=f"new{seed}.{number}",
                    grade=draw.pick(GRADES),
                )
                for number in range(_at_least_one(0.003 * len(students)))
            ]
            self._place(draw, new + back)
            teachers.append(
                self.add_user("teacher", draw.pick(FIRST), draw.pick(LAST), schools=[draw.pick(schools)], username=f"new{seed}.teacher")
            )
            retaught = draw.sample(sections, min(len(sections), _at_least_one(0.01 * len(sections))))
            for section in retaught:
                now = district.get("sections", section)["teachers"]
                self.set_members(section, teachers=now[:1] if len(now) > 1 else [*now, *{draw.pick(teachers)}.difference(now)])
        return {
            "new_students": len(new),
            "left": len(leavers),
            "returned": len(back),
            "renamed": len(renamed),
            "moved": len(movers),
            "new_ids": len(new_ids),
            "new_teachers": 1,
            "sections_retaught": len(retaught),
        }

    def rollover(self, seed: int, *, year: int = 2026) -> dict[str, int]:
        """Begins a new school year.

        Students go up one grade, or leave after grade 12. Students whose school does not have their new grade change school. All terms,
        courses and sections are new.

        Args:
            seed: of the new sections.
            year: calendar year in which the new school year begins.

        Returns:
            How many students graduated, went up a grade, changed school, and how many sections there are now.
        """
        draw = Draw(seed)
        district = self.district
        with self._editing() as stamp:
            rolls = {school: Roll(school) for school in sorted(district.records["schools"])}
            graduates, risen, changed = [], 0, 0
            for user, roles in sorted(district.roles.items()):
                if "teacher" in roles:
                    for school in schools_of(district.get("users", user), primary=True):
                        rolls[school].teachers.append(user)
                if "student" not in roles:
                    continue
                record = district.get("users", user)
                student = record["roles"]["student"]
                if student.get("grade") == GRADES[-1]:
                    graduates.append(user)
                    continue
                if student.get("grade") in GRADES:
                    student["grade"] = GRADES[GRADES.index(student["grade"]) + 1]
                    risen += 1
                    changed += self._outgrow(draw, student, list(rolls))
                    district.put("users", user, record | {"last_modified": stamp})
                rolls[student["school"]].students.append((student.get("grade", ""), user))
                for school in set(student["schools"]) - {student["school"]}:
                    rolls[school].guests.append((student.get("grade", ""), user))
            self.remove_users(graduates)
            for user in graduates:  # so that they do not return in a later night
                del district.removed[user]
            self._clear_year()
            SchoolYear(district, draw, year=year, stamp=lambda: stamp, oddities=False).deal(list(rolls.values()))
        return {"graduated": len(graduates), "risen": risen, "changed_school": changed, "sections": len(district.records["sections"])}

    def rollover_step(self, variant: str, step: int, seed: int, *, year: int = 2026) -> dict[str, int]:
        """Makes one step of a variant of the rollover (`ROLLOVERS`), counted from 1.

        Args:
            seed: of the new sections; the same in every step.

        Returns:
            As `rollover`, in the step in which the new year arrives; in the other ones nothing.

        Raises:
            UsageError: there is no such variant or step.
        """
        steps = ROLLOVERS.get(variant)
        if steps is None:
            raise UsageError(f"There is no variant {variant}.", hint=f"There are: {', '.join(ROLLOVERS)}.")
        if not 1 <= step <= len(steps):
            raise UsageError(f"The variant {variant} has no step {step}: it has {len(steps)}.")
        late = sorted(self.district.records["schools"])[::2]
        with self.district.lock:
            if (variant, step) == ("empty_july", 1):
                self._clear_year()
            elif (variant, step) == ("paused", 1):
                self.set_district(state="paused")
            elif (variant, step) == ("half_loaded", 2):
                self.reshare(late)
            else:
                if variant == "half_loaded":
                    self.unshare(late)
                self.set_district(state="running")
                return self.rollover(seed, year=year)
        return {}

    def _clear_year(self) -> None:
        with self._editing():
            for kind in ("terms", "courses", "sections"):
                self.district.records[kind].clear()

    def _outgrow(self, draw: Draw, student: Record, schools: list[str]) -> bool:
        """Moves a student to a school that has the grade, if the primary school does not have it. Returns whether it moved."""
        if self._has_grade(student["school"], student["grade"]):
            return False
        fitting = [school for school in schools if self._has_grade(school, student["grade"])]
        if not fitting:
            return False
        student["school"] = draw.pick(fitting)
        student["schools"] = [student["school"]]
        return True

    def _has_grade(self, school: str, grade: str) -> bool:
        record = self.district.get("schools", school)
        low, high = record.get("low_grade"), record.get("high_grade")
        return low not in GRADES or high not in GRADES or GRADES.index(low) <= GRADES.index(grade) <= GRADES.index(high)

    def _place(self, draw: Draw, students: list[str]) -> None:
        """Enrolls new students in sections of their primary school."""
        schools = {user: schools_of(self.district.get("users", user), primary=True)[0] for user in students}
        offered = self._sections_by_school(set(schools.values()))
        enrolled: dict[str, list[str]] = {}
        for user, school in schools.items():
            choice = offered.get(school, [])
            for section in draw.sample(choice, min(_SECTIONS_OF_A_NEWCOMER, len(choice))):
                enrolled.setdefault(section, []).append(user)
        self.enroll(enrolled)


def _at_least_one(number: float) -> int:
    return max(1, round(number))
