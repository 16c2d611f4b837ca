"""One district in Clever: its records as encoded JSON, the roles of its users, and what it shares with the application.

Belongs here: storage, lookup and visibility. Does not belong here: what a change does (`edits.py`) and the format of an answer
(`pages.py`). Records are stored as the bytes that are served, and decoded only for a change. So a district of a million students fits into
memory, and making a page only joins bytes.
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
_SEARCHED_IDS = 20  # up to this many ids, a substring search in the encoded records is faster than decoding all of them
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(record: object) -> bytes:
    """`record` as compact JSON in UTF-8. A lone surrogate, which UTF-8 cannot encode, becomes its JSON escape (`backslashreplace`)."""
    return _encoder.encode(record).encode("utf-8", "backslashreplace")


def decode(raw: bytes) -> Record:
    """The record that `encode` encoded."""
    return json.loads(raw)  # type: ignore[no-any-return]


def roles_of(user: Record) -> dict[str, Record]:
    """The well-formed roles of a user. A role that a test has broken on purpose is left out."""
    roles = user.get("roles")
    return {name: role for name, role in roles.items() if isinstance(role, dict)} if isinstance(roles, dict) else {}


def schools_of(user: Record, *, primary: bool = False) -> list[str]:
    """The ids of the schools of all of a user's roles; with `primary` only each role's primary school (staff have none)."""
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
        connected: False after the district has disconnected: the token is not listed any more, and does not work.
        token_accepted: False after the token is revoked: the token is still listed, but does not work.
        records: kind -> id -> encoded record. Change it with `put` and `drop` only.
        roles: user id -> roles in whose lists the user is. Stored apart from the record: a user whose `roles` a test has broken is served.
        removed: deleted users and their `roles`, so that `restore_users` can bring them back.
        unshared: ids of schools and users that the application may not see.
        changed_at: when an edit last changed the data; None before the first edit.
        noted_at: when `last_clever_sync` last moved, which it does with changes of sharing too; None before that.
        lock: hold it while reading or changing anything of the district.
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
        self.noted_at: datetime | None = None
        self.lock = threading.RLock()
        self.views: dict[object, list[str]] = {}
        self.pages: dict[object, bytes] = {}
        self._hidden_ids: frozenset[str] | None = None
        # Higher than every id in Clever's recorded answers: new objects come last, as in Clever.
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
        """A Clever id (24 hex), higher than all ids that this method has returned before."""
        return f"{self._id_prefix}{next(self._numbers):08x}"

    def put(self, kind: Kind, key: str, record: Record, *, roles: tuple[str, ...] | None = None) -> None:
        """Stores `record` under `key`. `roles` (users only): the roles in whose lists the user is; None leaves them unchanged."""
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
        """One record, decoded, even if it is not shared.

        Raises:
            UsageError: there is no such record.
        """
        raw = self.records[kind].get(key)
        if raw is None:
            raise UsageError(f"There is no record {key} among the {kind}.", district=self.id)
        return decode(raw)

    def holding(self, kind: Kind, needles: Collection[str]) -> Iterator[tuple[str, Record]]:
        """The records of a kind that may contain one of the ids `needles`, decoded. The caller has to check whether and where they do."""
        encoded = [needle.encode() for needle in needles]
        for key, raw in list(self.records[kind].items()):
            if len(encoded) > _SEARCHED_IDS or any(needle in raw for needle in encoded):
                yield key, decode(raw)

    def forget_views(self) -> None:
        """Drops every cached list and page. Call it after each change."""
        self.views.clear()
        self.pages.clear()
        self._hidden_ids = None

    def view(self, name: object, ids: Callable[[], Collection[str]]) -> list[str]:
        """The ids of a named selection, ascending. `ids` computes them if they are not cached since the last change."""
        if name not in self.views:
            self.views[name] = sorted(ids())
        return self.views[name]

    def shared(self, kind: Kind, role: str | None = None) -> list[str]:
        """Ids of the records of `kind` that the application may see, ascending; with `role` only users that have it."""

        def ids() -> list[str]:
            hidden = self._hidden()
            return [key for key in self.records[kind] if key not in hidden and (role is None or role in self.roles[key])]

        return self.view((kind, role), ids)

    def is_shared(self, kind: Kind, key: str) -> bool:
        """Whether the application may read this record."""
        return key in self.records[kind] and key not in self._hidden()

    def related(self, kind: Kind, needle: str, name: object, matches: Callable[[Record], bool]) -> list[str]:
        """Ids of shared records of `kind` that contain `needle` and satisfy `matches`, ascending. `name` is part of the cache key."""

        def ids() -> list[str]:
            return [key for key, record in self.holding(kind, [needle]) if self.is_shared(kind, key) and matches(record)]

        return self.view((kind, needle, name), ids)

    def _hidden(self) -> frozenset[str]:
        """Hidden ids: unshared schools and users, the sections of those schools, users that have no other school, and their contacts."""
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
