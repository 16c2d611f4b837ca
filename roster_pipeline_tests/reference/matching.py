"""Matches people of the snapshot with users of the application, and gives them usernames (R5.1-R5.5, R5.10).

Does not belong here: which people can be rostered, and what a brake holds (`model.py`).
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from roster_pipeline_tests.reference.records import Person, key
from roster_pipeline_tests.reference.rows import Id, State, User


@dataclass
class Matches:
    """The user of each person of the snapshot, by the rule that matched them. A person without a user is new (R5.4)."""

    linked: dict[str, Id] = field(default_factory=dict)
    adopted: dict[str, Id] = field(default_factory=dict)
    relinked: dict[str, Id] = field(default_factory=dict)
    waiting: dict[str, Id] = field(default_factory=dict)

    def user_of(self, clever_id: str) -> Id | None:
        return self.linked.get(clever_id) or self.adopted.get(clever_id) or self.relinked.get(clever_id)


class Named(NamedTuple):
    """The username that a person gets, and why: a value of `username_rule` in `reconcile.user_matches`."""

    username: str
    rule: str


def family_of(state: State, user_id: Id) -> str | None:
    """Student or staff: by the active roles of the user, or by ended ones if none is active. A user with both is staff."""
    held = [(role, row) for (holder, role, _), row in state.roles.items() if holder == user_id]
    roles = [role for role, row in held if row.deleted_at is None] or [role for role, _ in held]
    if not roles:
        return None
    return "student" if set(roles) == {"student"} else "staff"


def match(state: State, people: Mapping[str, Person], families: Mapping[str, str], present: set[str], unreadable: set[str]) -> Matches:
    """R5.1-R5.3. `waiting` are those who would be relinked if an element of a collection could be read (R4.8).

    Args:
        people: those who can be rostered.
        families: student or staff, by Clever id.
        present: every Clever id of the snapshot.
        unreadable: the roles whose collection has an element that cannot be read.
    """
    matches = Matches()
    for user_id, user in state.users.items():
        if user.clever_id is not None and user.clever_id in people:
            matches.linked[user.clever_id] = user_id

    candidates: dict[tuple[str | None, str | None], list[Id]] = defaultdict(list)
    for user_id, user in state.users.items():
        if user.clever_id is None and user.username is not None and not user.protected and not user.do_not_restore:
            candidates[key(user.username), family_of(state, user_id)].append(user_id)
    unlinked = [person for person in people.values() if person.clever_id not in matches.linked]
    claims = Counter((key(person.username), families[person.clever_id]) for person in unlinked)
    for person in unlinked:
        desired = (key(person.username), families[person.clever_id])
        found = candidates[desired]
        found = [user_id for user_id in found if state.users[user_id].deleted_at is None] or found
        if len(found) == 1 and claims[desired] == 1:
            matches.adopted[person.clever_id] = found[0]

    pairs = [
        (person.clever_id, user_id)
        for person in unlinked
        if person.clever_id not in matches.adopted
        for user_id, user in state.users.items()
        if user.clever_id is not None
        and user.clever_id not in present
        and not user.protected
        and family_of(state, user_id) == families[person.clever_id]
        and agree(user, person)
    ]
    by_person, by_user = Counter(clever_id for clever_id, _ in pairs), Counter(user_id for _, user_id in pairs)
    relinked = {clever_id: user_id for clever_id, user_id in pairs if by_person[clever_id] == by_user[user_id] == 1}
    for clever_id, user_id in relinked.items():
        had = {role for holder, role, _ in state.roles if holder == user_id}
        (matches.waiting if (people[clever_id].kinds | had) & unreadable else matches.relinked)[clever_id] = user_id
    return matches


def agree(user: User, person: Person) -> bool:
    """Whether two of three are equal (R5.3): the username that Clever gives, the sis_id, both names."""
    same_username = user.district_username is not None and key(user.district_username) == key(person.values["district_username"])
    same_sis_id = user.sis_id is not None and user.sis_id == person.values["sis_id"]
    return same_username + same_sis_id + (names_of(user.first_name, user.last_name) == names_of_person(person)) >= 2


def names_of(first: str | None, last: str | None) -> tuple[str | None, str | None]:
    """Both names as they compare."""
    return key(first), key(last)


def names_of_person(person: Person) -> tuple[str | None, str | None]:
    """Both names of a record, as they compare."""
    return names_of(person.values["first_name"], person.values["last_name"])


def find_duplicates(
    people: Mapping[str, Person], families: Mapping[str, str], linked: Collection[str], new: Collection[str]
) -> dict[str, str]:
    """R5.10: second records of people who are listed twice, each with the Clever id of the record that has the user.

    Args:
        people: every valid person of the snapshot.
        linked: Clever ids of those with a user, as far as that user is rostered or stays as it is.
        new: Clever ids of those without a user who could be rostered.
    """
    found = {}
    for each in new:
        person = people[each]
        same = [
            other
            for other in linked
            if person.values["sis_id"] is not None
            and people[other].values["sis_id"] == person.values["sis_id"]
            and names_of_person(people[other]) == names_of_person(person)
            and families[other] == families[each]
        ]
        if len(same) == 1:
            found[each] = same[0]
    return found


def give_usernames(state: State, people: Mapping[str, Person], matches: Matches, unchanged: set[Id]) -> dict[str, Named]:
    """R5.5: the username of each person who is written.

    Args:
        people: those who are rostered, without those whose users are protected.
        unchanged: users that are left unchanged, with their names.
    """
    taken = {key(user.username) for user_id, user in state.users.items() if user_id in unchanged and user.deleted_at is None}
    owners = {key(clever_id) for clever_id in people}
    claimants: dict[str | None, list[str]] = defaultdict(list)
    for person in people.values():
        claimants[key(person.username)].append(person.clever_id)

    given = {}
    for person in people.values():
        name = key(person.username)
        incumbents = [each for each in claimants[name] if _has(state, matches.user_of(each), name)]
        if name == key(person.clever_id):
            rule = "own_id"
        elif name in taken or name in owners or (incumbents and incumbents != [person.clever_id]):
            rule = "taken"
        elif incumbents:
            rule = "kept"
        else:
            rule = "given" if len(claimants[name]) == 1 else "contested"
        given[person.clever_id] = Named(person.username if rule in ("kept", "given") else person.clever_id, rule)
    return given


def add_those_without_a_name(state: State, people: Mapping[str, Id | None], unchanged: set[Id]) -> set[str]:
    """R5.5: people whose Clever id is the username of another user that is left unchanged. Their own users are added to `unchanged`.

    Args:
        people: the user of each person, by Clever id.
        unchanged: users that are left unchanged.
    """
    found: set[str] = set()
    while True:
        more = {
            clever_id
            for clever_id, user in people.items()
            if clever_id not in found and any(_has(state, user_id, key(clever_id)) and user_id != user for user_id in unchanged)
        }
        if not more:
            return found
        found |= more
        unchanged |= {user for each in more if (user := people[each]) is not None}


def _has(state: State, user_id: Id | None, name: str | None) -> bool:
    return user_id is not None and state.users[user_id].deleted_at is None and key(state.users[user_id].username) == name
