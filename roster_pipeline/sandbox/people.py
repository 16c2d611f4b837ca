"""Users of a generated district, one function per kind of person, drawn from one seeded source.

Belongs here: the fields of users and how often they are empty or missing. Does not belong here: who is in which section (`generate.py`).
"""

from roster_pipeline.sandbox.district import District, Record
from roster_pipeline.sandbox.draw import Draw
from roster_pipeline.sandbox.names import FIRST, LAST, ODD

GRADES = ("Kindergarten", *(str(number) for number in range(1, 13)))
# created and last_modified of all generated records: earlier than any later change
GENERATED_AT = tuple(
    f"2025-08-0{1 + day}T0{hour}:{minute:02d}:17.{minute * 13:03d}Z" for day in range(5) for hour in range(8) for minute in range(0, 60, 7)
)

_RACES = (
    *("Caucasian", "Asian", "Black or African American", "American Indian", "Hawaiian or Other Pacific Islander"),
    *("Two or More Races", "Unknown", ""),
)
# Every 500th username is blank, beginning with the 21st, and so on: a small district has each oddity too.
_BLANK_EVERY, _BLANK_FROM = 500, 21
_DUPLICATE_EVERY, _DUPLICATE_FROM = 1000, 31
_ODD_NAME = 0.01


class People:
    """Draws users into a district.

    Args:
        district: where to add the users.
        draw: the seeded source of all draws.
        oddities: whether there are odd names, and blank and duplicate usernames.
    """

    def __init__(self, district: District, draw: Draw, *, oddities: bool) -> None:
        self._district = district
        self._draw = draw
        self._oddities = oddities
        self._odd_names = iter(ODD if oddities else ())
        self._number = 0
        self._named = 0
        self._last_username = ""

    def student(self, schools: list[str], grade: str) -> str:
        """A student; the first of `schools` is the primary one."""
        draw, name = self._draw, self._name()
        number = str(100_000 + self._number)
        student: Record = {
            "credentials": {"district_username": self._username(name)},
            "dob": f"{1 + int(draw.random() * 12)}/{1 + int(draw.random() * 28)}/{2020 - GRADES.index(grade)}",
            "enrollments": [],
            "gender": self._draw.pick(("M", "F", "F", "M", "X", "")),
            "grade": grade,
            "graduation_year": "" if self._draw.chance(0.5) else str(2038 - GRADES.index(grade)),
            "hispanic_ethnicity": self._draw.pick(("Y", "N", "N", "")),
            "location": {"address": "", "city": "", "state": "", "zip": str(10_000 + int(draw.random() * 80_000))},
            "race": self._draw.pick(_RACES),
            "school": schools[0],
            "schools": schools,
            "sis_id": number,
            "state_id": str(20_000_000 + self._number),
            "student_number": number,
        }
        self._omit(
            student, ("dob", 0.001), ("gender", 0.02), ("race", 0.02), ("state_id", 0.05), ("student_number", 0.03), ("grade", 0.002)
        )
        email = self._email(name, "students")
        if email is not None:
            student["email"] = email
        return self._user(name, email, {"student": student})

    def teacher(self, schools: list[str], more: dict[str, Record]) -> str:
        """A teacher, perhaps with `more` roles; the first of `schools` is the primary one."""
        name = self._name()
        username = self._username(name)
        teacher: Record = {
            "credentials": {"district_username": username},
            "school": schools[0],
            "schools": schools,
            "sis_id": str(5_000 + self._number),
            "state_id": str(70_000_000 + self._number),
            "teacher_number": str(200_000 + self._number),
            "title": self._draw.pick(("Teacher", "Grade Teacher", "", "Teacher of Record")),
        }
        self._omit(teacher, ("state_id", 0.1), ("teacher_number", 0.05), ("title", 0.1))
        roles = {"teacher": teacher} | more
        if "staff" in roles:
            roles["staff"]["credentials"] = {"district_username": username}
        return self._user(name, self._email(name, "schools"), roles)

    def staff(self, schools: list[str]) -> str:
        """A member of staff, which is Clever's role for a school admin. `schools` may be empty."""
        name = self._name()
        return self._user(
            name,
            self._email(name, "schools"),
            {"staff": self.staff_role(schools) | {"credentials": {"district_username": self._username(name)}}},
        )

    def staff_role(self, schools: list[str]) -> Record:
        """The object under `roles.staff`, without credentials."""
        staff: Record = {
            "department": self._draw.pick(("", "Office", "Technology")),
            "schools": schools,
            "staff_id": str(9_000 + self._number),
        }
        staff["roles"] = self._draw.pick(([], [], ["PortalOnly"], ["SchoolTechLead"]))
        self._omit(staff, ("department", 0.3))
        return staff

    def district_admin(self) -> str:
        """An administrator of the whole district."""
        name = self._name()
        return self._user(
            name, self._email(name, "schools"), {"district_admin": {"title": self._draw.pick(("", "Superintendent", "IT Director"))}}
        )

    def contact(self, student: str) -> str:
        """A parent or other contact of one student; Clever puts the whole name into `name.last`."""
        name = {"last": f"{self._draw.pick(FIRST)} {self._draw.pick(LAST)}"}
        relation: Record = {
            "relationship": self._draw.pick(("Parent", "Grandparent", "Aunt/Uncle", "Other", "")),
            "student": student,
            "type": "Primary",
        }
        phone = f"({200 + self._number % 700}) 555-01{self._number % 100:02d}"
        contact: Record = {
            "phone": phone,
            "phone_type": self._draw.pick(("Cell", "Home", "Work", "Other", "")),
            "sis_id": "",
            "student_relationships": [relation],
        }
        return self._user(name, f"contact{self._number}@example.com", {"contact": contact})

    def _user(self, name: Record, email: str | None, roles: Record) -> str:
        self._number += 1
        key, stamp = self._district.new_id(), self._draw.pick(GENERATED_AT)
        record: Record = {"created": stamp, "district": self._district.id, "last_modified": stamp, "name": name, "id": key, "roles": roles}
        if email is not None:
            record["email"] = email
        self._district.put("users", key, record, roles=_interned(roles))
        return key

    def _name(self) -> Record:
        odd = next(self._odd_names, None)
        if odd is None and self._oddities and self._draw.chance(_ODD_NAME):
            odd = self._draw.pick(ODD)
        if odd is not None:
            return {"first": odd[0], "last": odd[1]}
        name = {"first": self._draw.pick(FIRST), "last": self._draw.pick(LAST)}
        if self._draw.chance(0.6):
            name["middle"] = "" if self._draw.chance(0.1) else self._draw.pick(FIRST)[0]
        return name

    def _username(self, name: Record) -> str:
        self._named += 1
        if self._oddities and self._named % _BLANK_EVERY == _BLANK_FROM:
            return ""
        if self._oddities and self._named % _DUPLICATE_EVERY == _DUPLICATE_FROM:
            return self._last_username.upper() if self._draw.chance(0.5) else self._last_username
        self._last_username = f"{_plain(name['first'])}.{_plain(name['last'])}{self._number}"
        return self._last_username

    def _email(self, name: Record, host: str) -> str | None:
        drawn = self._draw.random()
        if drawn < 0.05:
            return None if drawn < 0.03 else ""
        return f"{_plain(name['first'])}{self._number}@{host}.example.org"

    def _omit(self, record: Record, *shares: tuple[str, float]) -> None:
        for field, share in shares:
            if self._draw.chance(share):
                del record[field]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isascii() and letter.isalpha())[:12] or "user"


_ROLES: dict[tuple[str, ...], tuple[str, ...]] = {}


def _interned(roles: Record) -> tuple[str, ...]:
    """The roles as a tuple. People with the same roles share one tuple, to save memory."""
    key = tuple(roles)
    return _ROLES.setdefault(key, key)
