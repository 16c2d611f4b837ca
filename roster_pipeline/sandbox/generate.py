"""Generates districts from a seed, with the ratios of Clever's own recorded sandbox district.

Belongs here: schools, and their people. Does not belong here: the fields of people (`people.py`) and the sections (`sections.py`).

Recorded ratios (1,004 students): 8.9 sections a student, 23.7 students a section, 26 % of students in several schools and 4 % in three,
12 % of sections co-taught, 13 % of teachers without a section, 9 teachers and 100 contacts per 100 students.
"""

from hashlib import sha256

from roster_pipeline.sandbox.district import District, Record
from roster_pipeline.sandbox.draw import Draw
from roster_pipeline.sandbox.names import PLACES
from roster_pipeline.sandbox.people import GENERATED_AT, GRADES, People
from roster_pipeline.sandbox.sections import Roll, SchoolYear

_STUDENTS_PER_SCHOOL = 500
_LEVELS = (("Elementary School", GRADES[:6]), ("Middle School", GRADES[6:9]), ("High School", GRADES[9:]))
_WITHOUT_SECTIONS = 0.005


def generate_district(seed: int, students: int, *, name: str | None = None, oddities: bool = True) -> District:
    """A district of `students` students, with schools, sections, staff and contacts.

    Args:
        seed: the same seed and arguments give the same ids, records and token, byte for byte. Another seed gives another district id.
        students: number of students; about 500 a school, at least three schools.
        name: the district's name; None for an invented one.
        oddities: False for a district in which every record can be rostered: without odd names, blank or duplicate usernames, ids that do
            not exist, and staff without a school.
    """
    draw = Draw(seed)
    district_id = f"67{sha256(f'district {seed}'.encode()).hexdigest()[:22]}"
    district = District(_district_record(district_id, name or f"#DEMO {draw.choice(PLACES)} Unified {seed}"))
    people = People(district, draw, oddities=oddities)
    schools = _schools(district, draw, max(3, round(students / _STUDENTS_PER_SCHOOL)))
    rolls = [Roll(school) for school in schools]
    _employees(people, draw, rolls, students, oddities=oddities)
    _students(people, draw, rolls, students)
    SchoolYear(district, draw, year=2025, stamp=lambda: draw.pick(GENERATED_AT), oddities=oddities).deal(rolls)
    return district


def _district_record(district_id: str, name: str) -> Record:
    contact: Record = {"id": f"66{district_id[2:]}", "district": district_id, "email": "it@district.example.org", "title": ""}
    return {
        "name": name,
        "portal_url": f"https://clever.com/in/{district_id}",
        "sis_type": "sftp",
        "error": "",
        "launch_date": "2025-08-15",
        "district_contact": contact | {"name": {"first": "Dana", "last": "Whitfield"}},
        "state": "running",
        "last_sync": "2025-08-06T02:00:00.000Z",
        "login_methods": ["Clever Badges", "Clever Passwords"],
        "id": district_id,
    }


def _schools(district: District, draw: Draw, number: int) -> list[str]:
    """Schools of all levels in turn, so that three schools have every grade."""
    found = []
    for index in range(number):
        level, grades = _level(index)
        series, place = divmod(index // len(_LEVELS), len(PLACES))
        key, stamp = district.new_id(), draw.pick(GENERATED_AT)
        record: Record = {"id": key, "district": district.id, "created": stamp, "last_modified": stamp}
        record |= {"name": f"{PLACES[place]} {level}" + (f" {series + 1}" if series else "")}
        record |= {"sis_id": str(index + 1), "school_number": str(index + 1), "low_grade": grades[0], "high_grade": grades[-1]}
        record |= {"phone": "", "principal": {"name": "", "email": ""}, "location": {"address": "", "city": "", "state": "", "zip": ""}}
        if draw.chance(0.5):
            record |= {"nces_id": f"{index:012d}", "state_id": str(index + 1), "mdr_number": ""}
        district.put("schools", key, record)
        found.append(key)
    return found


def _level(index: int) -> tuple[str, tuple[str, ...]]:
    return _LEVELS[index % len(_LEVELS)]


def _employees(people: People, draw: Draw, rolls: list[Roll], students: int, *, oddities: bool) -> None:
    """District admins, staff and teachers. Some have several roles or work at several schools."""
    for _ in range(3 + students // 20_000):
        people.district_admin()
    for index, roll in enumerate(rolls):
        people.staff([roll.school] if index % 4 else [roll.school, rolls[index - 1].school])
    if oddities:
        for _ in range(1 + len(rolls) // 10):
            people.staff([])
    for index in range(max(len(rolls), round(students * 0.09))):
        home = rolls[index % len(rolls)]
        at = [home.school] if not draw.chance(0.05) else [home.school, *{draw.choice(rolls).school} - {home.school}]
        more: dict[str, Record] = {}
        if index == 0 or draw.chance(0.01):
            more["staff"] = people.staff_role([home.school])
        if index == 1:
            more["district_admin"] = {"title": "Technology"}
        teacher = people.teacher(at, more)
        # The first teacher of every school always teaches sections. Otherwise a small school could have no teacher for its sections.
        if index < len(rolls) or not draw.chance(0.13):
            home.teachers.append(teacher)


def _students(people: People, draw: Draw, rolls: list[Roll], number: int) -> None:
    """Students, each with a contact. A student has a primary school and up to two more."""
    for index in range(number):
        at = index % len(rolls)
        share = draw.random()
        others = draw.sample(range(len(rolls) - 1), 2 if share < 0.04 else 1 if share < 0.26 else 0)
        visited = [rolls[other if other < at else other + 1] for other in others]
        grade = draw.pick(_level(at)[1])
        student = people.student([rolls[at].school, *(roll.school for roll in visited)], grade)
        people.contact(student)
        if not draw.chance(_WITHOUT_SECTIONS):
            rolls[at].students.append((grade, student))
            for roll in visited:
                roll.guests.append((grade, student))
