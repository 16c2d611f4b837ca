"""The readiness report: the numbers of `reconcile.readiness` as answers to the questions of SPEC 10, each with a verdict.

Belongs here: the order of the questions, what each number means, and the verdict that it leads to. Does not belong here: counting
(`dbt_like_sql/reconcile/readiness.sql` and the models it reads) and printing (`commands/readiness.py`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from roster_pipeline.brake_kinds import LICENSES
from roster_pipeline.support.preview import PlanReport
from roster_pipeline.sync.brakes import held_kinds

Verdict = Literal["ok", "warning", "stop"]
_WORST_LAST: tuple[Verdict, ...] = ("ok", "warning", "stop")


class Line(NamedTuple):
    """The label of one item, and the verdict if its count is not zero."""

    label: str
    verdict: Verdict = "ok"


class Question(NamedTuple):
    """One topic of `reconcile.readiness`."""

    text: str
    items: Mapping[str, Line]


# In the order of SPEC 10. It has exactly the topics and items of the SQL model; a test compares the two.
QUESTIONS: Mapping[str, Question] = {
    "schools": Question(
        "Do the shared schools match the agreement?",
        {
            "agreed": Line("Agreed schools"),
            "shared": Line("Shared schools"),
            "agreed_and_shared": Line("Agreed and shared"),
            "agreed_not_shared": Line("Agreed, but not shared", "warning"),
            "outside": Line("Shared, but outside the agreement and so not rostered", "warning"),
            "same_name": Line("Agreed names that several shared schools have, all of them rostered", "warning"),
            "protected": Line("Shared, but deactivated here and protected, so that nothing is rostered there", "warning"),
            "quarantined": Line("School records that are broken and so quarantined", "warning"),
        },
    ),
    "classrooms": Question(
        "Do the classrooms match it?",
        {
            "shared": Line("Shared sections"),
            "rostered": Line("Of these rostered as classrooms"),
            "unknown_school": Line("Sections of a school that is not shared, not rostered", "warning"),
            "outside": Line("Sections of schools outside the agreement, not rostered", "warning"),
            "untouched": Line("Sections of quarantined schools and protected classrooms, left unchanged", "warning"),
            "quarantined": Line("Section records that are broken and so quarantined", "warning"),
            "schools_without": Line("Schools without any section", "warning"),
        },
    ),
    "people": Question(
        "Who would be rostered?",
        {
            "shared": Line("Shared people"),
            "rostered": Line("Of these rostered"),
            "outside_school": Line("At schools outside the agreement only, not rostered", "warning"),
            "outside_grade": Line("In grades outside the agreement, not rostered", "warning"),
            "no_role": Line("Without a role at a shared school, not rostered", "warning"),
            "duplicate_record": Line("Second records of people that Clever lists twice, without an account of their own", "warning"),
            "username_taken": Line("Whose Clever id a protected user has as username, and so quarantined", "warning"),
            "quarantined": Line("User records that are broken and so quarantined", "warning"),
            "protected": Line("Protected here, so that a sync never changes them"),
            "deactivated": Line("Deactivated here by support, and not restored by a sync"),
        },
    ),
    "existing_users": Question(
        "Does the account have existing users?",
        {
            "active": Line("Active users"),
            "deleted": Line("Deactivated users"),
            "clever": Line("Active users from Clever"),
            "csv": Line("Active users imported from CSV"),
            "app": Line("Active users made in the application"),
            "protected": Line("Active users that are protected from syncs"),
            "unlinked": Line(
                "Active users neither linked to Clever nor protected, to be recognised by username or soft-deleted", "warning"
            ),
        },
    ),
    "licenses": Question(
        "Are the licenses enough?",
        {
            "bought": Line("Licenses bought"),
            "students": Line("Students who would count"),
            "free": Line("Licenses left"),
            "over": Line("Students beyond the licenses", "warning"),
            "held": Line("Students that Clever no longer shares, counted until they are soft-deleted", "warning"),
            "schools_over": Line("Schools with more students than licenses of their own", "warning"),
        },
    ),
    "usernames": Question(
        "Do the usernames match existing users?",
        {
            "linked": Line("People linked to a user by Clever id already"),
            "match": Line("Match an existing user, who is adopted"),
            "relink": Line("Match an existing user under an old Clever id, who is relinked", "warning"),
            "new": Line("Differ from every existing user and get a new one"),
            "differs": Line("Linked users who would get another username than they have", "warning"),
            "not_recognised": Line("New users whose username an existing user has who is not recognised as the same person", "warning"),
            "taken": Line("Collide with somebody who keeps the name, and get their Clever id as username", "warning"),
            "contested": Line("Collide with each other, and get their Clever id as username", "warning"),
        },
    ),
    "existing_data": Question(
        "What would happen to the existing data?",
        {
            "users_adopted": Line("Existing users recognised by username, kept with their history"),
            "users_restored": Line("Deactivated users restored"),
            "users_soft_deleted": Line("Users soft-deleted", "warning"),
            "schools_soft_deleted": Line("Schools soft-deleted", "warning"),
            "classrooms_soft_deleted": Line("Classrooms soft-deleted", "warning"),
            "enrollments_soft_deleted": Line("Enrollments ended", "warning"),
        },
    ),
    "without_username": Question(
        "Who has no district username?",
        {"non_admins": Line("Students and teachers who could only sign in through Clever", "warning")},
    ),
    "admins": Question(
        "Who are the admins?",
        {
            "people": Line("Admins, who get their Clever id as username"),
            "district_admins": Line("District admins"),
            "school_admins": Line("School admins"),
        },
    ),
    "several_schools": Question("Are students in several schools?", {"students": Line("Students shared in several schools", "warning")}),
    "several_classrooms": Question(
        "Are students in several classrooms?", {"students": Line("Students in several classrooms, whose reports repeat", "warning")}
    ),
}


@dataclass(frozen=True)
class Item:
    """One number. The item of a school with licenses of its own is `school <Clever id>`.

    Attributes:
        detail: names of schools, or another number; `no limit` replaces the count.
        is_context: shown also at zero. Other items are shown only if they count something.
    """

    item: str
    label: str
    count: int
    detail: str | None
    verdict: Verdict
    is_context: bool


@dataclass(frozen=True)
class Note:
    """One sentence about several numbers, or about the rules of this district."""

    text: str
    verdict: Verdict


@dataclass(frozen=True)
class Answer:
    """One question answered. Its verdict is the worst of its items and notes."""

    topic: str
    question: str
    items: Sequence[Item]
    notes: Sequence[Note]

    @property
    def verdict(self) -> Verdict:
        """ok: go on; warning: a person should know this before the first sync; stop: resolve this before a sync."""
        return worst([*(item.verdict for item in self.items), *(note.verdict for note in self.notes)])


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of some verdicts; ok if there are none."""
    return max(verdicts, key=_WORST_LAST.index, default="ok")


def answers(report: PlanReport) -> list[Answer]:
    """Every question of SPEC 10, in its order."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {topic: {} for topic in QUESTIONS}
    for row in report.readiness:
        found[row["topic"]][row["item"]] = row
    counts = {topic: {item: int(row["count"]) for item, row in items.items()} for topic, items in found.items()}
    notes = {
        "schools": _schools(counts["schools"]),
        "classrooms": [] if counts["classrooms"]["rostered"] else [Note("No classroom would be rostered.", "stop")],
        "people": [] if counts["people"]["rostered"] else [Note("Nobody would be rostered.", "stop")],
        "licenses": _licenses(counts["licenses"], report),
        "usernames": _usernames(counts["usernames"], counts["existing_users"]),
        "existing_data": _existing_data(report),
        "several_schools": _several_schools(counts["several_schools"], report),
    }
    return [
        Answer(topic, question.text, [*_items(question, found[topic]), *_schools_with_licenses(found[topic])], notes.get(topic, []))
        for topic, question in QUESTIONS.items()
    ]


def _items(question: Question, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Item]:
    for item, line in question.items.items():
        count = int(rows[item]["count"])
        verdict = line.verdict if count else "ok"
        yield Item(item, line.label, count, rows[item]["detail"], verdict, is_context=line.verdict == "ok" or len(question.items) == 1)


def _schools_with_licenses(rows: Mapping[str, Mapping[str, Any]]) -> list[Item]:
    schools = sorted((row["detail"], item, int(row["count"])) for item, row in rows.items() if " " in item)
    return [Item(item, "Students at a school with licenses", count, detail, "ok", is_context=True) for detail, item, count in schools]


def _schools(counts: Mapping[str, int]) -> list[Note]:
    if not counts["shared"] + counts["quarantined"]:
        return [Note("Clever shares no school.", "stop")]
    if not counts["agreed"]:
        return [Note("The agreement names no schools: every shared school is inside.", "ok")]
    return [] if counts["agreed_and_shared"] else [Note("None of the agreed schools is shared: nothing would be rostered.", "stop")]


_BEYOND = {
    "warn": Note("All of them would be rostered (policy warn).", "warning"),
    "wait": Note("Students beyond the licenses would be rostered without a seat (policy wait).", "warning"),
    "hold": Note("Students beyond the licenses would not be rostered until a hold is approved or licenses added (policy hold).", "stop"),
}


def _licenses(counts: Mapping[str, int], report: PlanReport) -> list[Note]:
    return [_BEYOND[report.district.row["over_license_policy"]]] if counts["over"] or counts["schools_over"] else []


def _usernames(counts: Mapping[str, int], existing: Mapping[str, int]) -> list[Note]:
    if existing["unlinked"] and not counts["match"]:
        # The usual reason is that usernames are spelled differently here (with a domain, for example). Every account would be deactivated.
        return [Note("No existing user would be recognised: compare how usernames are written here and in Clever.", "stop")]
    return []


def _existing_data(report: PlanReport) -> list[Note]:
    notes = []
    if kinds := held_kinds(each for each in report.plan.holding if each.holds_whole_sync):
        notes.append(Note(f"The first sync would write nothing until its hold ({kinds}) is approved.", "stop"))
    for brake in (each.brake for each in report.plan.holding if not each.holds_whole_sync):
        if brake.kind != LICENSES.name:
            where = f", {brake.role}" if brake.role else ""
            where += f", {report.brake_schools[brake.school_id]}" if brake.school_id is not None else ""
            notes.append(Note(f"A sync would hold this for approval: {brake.kind}{where} ({brake.acts:,}).", "stop"))
    return notes


def _several_schools(counts: Mapping[str, int], report: PlanReport) -> list[Note]:
    if not counts["students"]:
        return []
    everywhere = report.district.rules is not None and report.district.rules.student_multi_school
    where = "at every shared school" if everywhere else "at the primary school only; what Clever lists elsewhere is left out"
    return [Note(f"They would be rostered {where}.", "warning")]
