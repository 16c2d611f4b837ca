"""One district as Clever holds it: its records as encoded JSON, who holds which role, and what is shared with the application.

Belongs here: storage, lookup and visibility. Does not belong here: what a change means (`edits.py`) and what an answer looks like
(`pages.py`). Records are kept as the bytes they are served as and decoded only to be changed: a district of a million students fits into
memory, and a page is a join of bytes.
"""

import json
import threading
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from hashlib import sha256
from itertools import count
from typing import Any, Literal, get_args

from roster_pipeline.errors import UsageError

Record = dict[str, Any]
Kind = Literal["schools", "terms", "courses", "sections", "users"]
Role = Literal["contact", "district_admin", "staff", "student", "teacher"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ROLES: tuple[Role, ...] = get_args(Role)

_SCOPES = [
    *("read:district_admins", "read:districts", "read:resources", "read:school_admins", "read:schools"),
    *("read:sections", "read:student_contacts", "read:students", "read:teachers", "read:user_id"),
]
_SEVERAL = 20  # ids: up to here a substring search over the encoded records is quicker than decoding them all
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(record: object) -> bytes:
    """`record` as compact JSON in UTF-8. A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape (`backslashreplace`)."""
    return _encoder.encode(record).encode("utf-8", "backslashreplace")


def decode(raw: bytes) -> Record:
    """The record behind `encode`'s bytes."""
    return json.loads(raw)  # type: ignore[no-any-return]


def roles_of(user: Record) -> dict[str, Record]:
    """The well-formed roles of a user; whatever a test has broken on purpose counts as not there."""
    roles = user.get("roles")
    return {name: role for name, role in roles.items() if isinstance(role, dict)} if isinstance(roles, dict) else {}


def schools_of(user: Record, *, primary: bool = False) -> list[str]:
    """The ids of the schools a user belongs to through any role; with `primary` only each role's own school (staff have none)."""
    found: dict[str, None] = {}
    for role in roles_of(user).values():
        listed = [] if primary else role.get("schools")
        for school in [role.get("school"), *(listed if isinstance(listed, list) else [])]:
            if isinstance(school, str):
                found[school] = None
    return list(found)


class District:
    """A connected district.

    Attributes:
        record: the district object as served.
        token: the entry of the token list: id, created, owner, access_token (40 hex), scopes.
        connected: False once the district has disconnected: it leaves the token list and its token stops working.
        token_accepted: False once the token is revoked: still listed, no longer accepted.
        records: kind -> id -> encoded record. Change it through `put` and `drop` only.
        roles: user id -> roles the user is listed under. Kept beside the record: a user whose `roles` a test has broken is still served.
        removed: users that were deleted, with the roles they were listed under, so that they can come back.
        unshared: ids of schools and users that the application may not see.
        changed_at: when an edit last changed the data; None before the first.
        lock: held while reading or changing anything of the district.
    """

    def __init__(self, record: Record, *, token: Record | None = None) -> None:
        self.record = record
        digest = sha256(self.id.encode()).hexdigest()
        self.token: Record = token or {
            "id": f"65{digest[:22]}",
            "created": "2025-06-02T15:00:00.000Z",
            "access_token": digest[-40:],
            "scopes": _SCOPES,
        }
        self.token |= {"owner": {"type": "district", "id": self.id}}
        self.connected = True
        self.token_accepted = True
        self.records: dict[Kind, dict[str, bytes]] = {kind: {} for kind in KINDS}
        self.roles: dict[str, tuple[str, ...]] = {}
        self.removed: dict[str, tuple[Record, tuple[str, ...]]] = {}
        self.unshared: set[str] = set()
        self.changed_at: datetime | None = None
        self.lock = threading.RLock()
        self.views: dict[object, list[str]] = {}
        self.pages: dict[object, bytes] = {}
        self._hidden_ids: frozenset[str] | None = None
        # Later than every id recorded from Clever, so that new objects come last, as theirs do.
        self._id_prefix = f"68{digest[:14]}"
        self._numbers = count(1)

    @property
    def id(self) -> str:
        """The district's Clever id."""
        return str(self.record["id"])

    @property
    def access_token(self) -> str:
        """The bearer token of the Data API."""
        return str(self.token["access_token"])

    def new_id(self) -> str:
        """A Clever id (24 hex) above all that this district has given out."""
        return f"{self._id_prefix}{next(self._numbers):08x}"

    def put(self, kind: Kind, key: str, record: Record, *, roles: tuple[str, ...] | None = None) -> None:
        """Stores `record` under `key`. `roles` (users only): what the user is listed under from now on; None keeps what it was."""
        self.records[kind][key] = encode(record)
        if kind == "users":
            self.roles[key] = roles if roles is not None else self.roles.get(key, ())
        self.forget_views()

    def drop(self, kind: Kind, key: str) -> None:
        """Removes a record.

        Raises:
            UsageError: there is no such record.
        """
        self.get(kind, key)
        del self.records[kind][key]
        self.roles.pop(key, None)
        self.forget_views()

    def get(self, kind: Kind, key: str) -> Record:
        """One record, decoded; shared or not.

        Raises:
            UsageError: there is no such record.
        """
        raw = self.records[kind].get(key)
        if raw is None:
            raise UsageError(f"There is no record {key} among the {kind}.", district=self.id)
        return decode(raw)

    def holding(self, kind: Kind, needles: Collection[str]) -> Iterator[tuple[str, Record]]:
        """The records of a kind that may mention one of the ids `needles`, decoded; the caller has to look where they are mentioned."""
        wanted = [needle.encode() for needle in needles]
        for key, raw in list(self.records[kind].items()):
            if len(wanted) > _SEVERAL or any(needle in raw for needle in wanted):
                yield key, decode(raw)

    def forget_views(self) -> None:
        """Drops every cached list and page; to be called after each change."""
        self.views.clear()
        self.pages.clear()
        self._hidden_ids = None

    def view(self, name: object, ids: Callable[[], Collection[str]]) -> list[str]:
        """The ids of a named selection, ascending; `ids` computes them when nothing has been cached since the last change."""
        if name not in self.views:
            self.views[name] = sorted(ids())
        return self.views[name]

    def shared(self, kind: Kind, role: str | None = None) -> list[str]:
        """Ids of the records of `kind` that the application may see, ascending; of users optionally only the holders of `role`."""

        def ids() -> list[str]:
            hidden = self._hidden()
            return [key for key in self.records[kind] if key not in hidden and (role is None or role in self.roles[key])]

        return self.view((kind, role), ids)

    def is_shared(self, kind: Kind, key: str) -> bool:
        """Whether the application may read this record."""
        return key in self.records[kind] and key not in self._hidden()

    def related(self, kind: Kind, needle: str, name: object, matches: Callable[[Record], bool]) -> list[str]:
        """Shared records of `kind` that mention the id `needle` and satisfy `matches`, ascending. `name` tells uses apart."""

        def ids() -> list[str]:
            return [key for key, record in self.holding(kind, [needle]) if self.is_shared(kind, key) and matches(record)]

        return self.view((kind, needle, name), ids)

    def _hidden(self) -> frozenset[str]:
        """Ids that sharing hides: unshared schools and users, the sections of those schools, and whoever has no other school."""
        if self._hidden_ids is None:
            hidden = set(self.unshared)
            if hidden:
                hidden.update(key for key, section in self.holding("sections", self.unshared) if section.get("school") in self.unshared)
                hidden.update(key for key, user in self.holding("users", self.unshared) if self._only_at(self.unshared, key, user))
                hidden.update([key for key, user in self.holding("users", hidden) if _only_contact_of(hidden, user)])
            self._hidden_ids = frozenset(hidden)
        return self._hidden_ids

    def _only_at(self, schools: set[str], key: str, user: Record) -> bool:
        own = schools_of(user)
        return bool(own) and schools.issuperset(own) and "district_admin" not in self.roles[key]


def _only_contact_of(students: set[str], user: Record) -> bool:
    related = [item["student"] for item in roles_of(user).get("contact", {}).get("student_relationships", [])]
    return bool(related) and students.issuperset(related)
