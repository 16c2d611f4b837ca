"""Generates a school year's terms, courses and sections, and puts students and teachers into the sections.

Belongs here: how students are spread over sections. Does not belong here: which students and teachers a school has (`generate.py`,
`changes.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from roster_pipeline.sandbox.district import District, Kind, Record
from roster_pipeline.sandbox.draw import Draw
from roster_pipeline.sandbox.names import COURSES

# Each student is in 8 sections of the primary school, and 60 % in one more. Second and third schools add the rest of the ratio of 8.9.
_PASSES = 8
_EXTRA_PASS = 0.6
_SIZES = (14, 33)  # students of a section; a smaller remainder joins the previous section
_CO_TAUGHT = 0.12


@dataclass
class Roll:
    """The people that can be in the sections of one school. Students are (grade, id), because sections are filled by grade.

    Attributes:
        students: their primary school is this one.
        guests: their second or third school is this one.
    """

    school: str
    teachers: list[str] = field(default_factory=list)
    students: list[tuple[str, str]] = field(default_factory=list)
    guests: list[tuple[str, str]] = field(default_factory=list)


class SchoolYear:
    """Adds one school year to a district.

    Args:
        district: where to add terms, courses and sections.
        draw: the seeded source.
        year: calendar year in which the school year begins.
        stamp: returns created and last_modified of each section.
        oddities: whether some sections name people or a school that do not exist.
    """

    def __init__(self, district: District, draw: Draw, *, year: int, stamp: Callable[[], str], oddities: bool) -> None:
        self._district = district
        self._draw = draw
        self._year = year
        self._stamp = stamp
        self._oddities = oddities
        self._sections = 0

    def deal(self, rolls: list[Roll]) -> None:
        """Adds the year's terms, and courses and sections for every school."""
        start, end = self._year, self._year + 1
        dates = (
            ("Fall", f"{start}-08-18", f"{start}-12-19"),
            ("Spring", f"{end}-01-05", f"{end}-06-12"),
            ("Year", f"{start}-08-18", f"{end}-06-12"),
        )
        terms = [self._put("terms", {"name": name, "start_date": first, "end_date": last}) for name, first, last in dates]
        for roll in rolls:
            courses = [
                (self._put("courses", {"name": title, "number": str(number)}), title, subject)
                for number, (title, subject) in enumerate(COURSES)
            ]
            for index, members in enumerate(self._groups(roll)):
                self._section(roll, index, members, courses, terms)

    def _put(self, kind: Kind, fields: Record) -> str:
        key = self._district.new_id()
        self._district.put(kind, key, {"id": key, "district": self._district.id, **fields})
        return key

    def _groups(self, roll: Roll) -> list[list[tuple[str, str]]]:
        """The students of each of the school's sections. One pass puts every student into one section, mostly by grade."""
        groups = []
        for number in range(_PASSES + 1):
            if number < _PASSES:
                roster = list(roll.students)
            else:
                roster = [item for item in roll.students if self._draw.chance(_EXTRA_PASS)] + roll.guests
            self._draw.shuffle(roster)
            roster.sort(key=lambda item: item[0])
            position = 0
            while position < len(roster):
                size = self._draw.randint(*_SIZES)
                if len(roster) - position - size < _SIZES[0]:
                    size = len(roster) - position
                groups.append(roster[position : position + size])
                position += size
        return groups

    def _section(
        self, roll: Roll, index: int, members: list[tuple[str, str]], courses: list[tuple[str, str, str]], terms: list[str]
    ) -> None:
        draw = self._draw
        self._sections += 1
        course, title, subject = draw.pick(courses)
        teachers = [roll.teachers[index % len(roll.teachers)]] if roll.teachers else []
        if draw.chance(_CO_TAUGHT) and len(roll.teachers) > 1:
            chosen = draw.sample(roll.teachers, min(len(roll.teachers), draw.randint(2, 4)))
            teachers += [teacher for teacher in chosen if teacher != teachers[0]]
        students = sorted(student for _, student in members)
        school = roll.school
        if self._oddities:
            if self._sections % 250 == 5:
                students.append(self._district.new_id())
            if self._sections % 500 == 11:
                teachers.append(self._district.new_id())
            if self._sections % 1000 == 17:
                school = self._district.new_id()
        stamp, period = self._stamp(), str(1 + index % 8)
        record: Record = {
            "course": course,
            "created": stamp,
            "grade": members[0][0],
            "last_modified": stamp,
            "name": f"{title} - {period} - {index + 1}",
            "period": period,
            "school": school,
            "section_number": "" if draw.chance(0.5) else str(index + 1),
            "sis_id": f"{roll.school[-4:]}-{self._year}-{index}",
            "students": students,
            "subject": subject,
            "teachers": teachers,
            "term_id": draw.pick(terms),
        }
        if teachers:
            record["teacher"] = teachers[0]
        for name in ("grade", "period", "term_id", "course"):
            if draw.chance(0.02):
                del record[name]
        self._put("sections", record)
