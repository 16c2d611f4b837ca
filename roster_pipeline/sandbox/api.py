"""Clever's two hosts: the token list and the Data API v3.0 and v3.1.

Belongs here: paths, parameters, authentication and status codes. Does not belong here: the format of answers (`pages.py`), misbehaviour
(`misbehaving.py`) and the control API (`control.py`).
"""

from base64 import b64decode
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from roster_pipeline.sandbox.district import KINDS, ROLES, District, Kind, Record, encode, roles_of, schools_of
from roster_pipeline.sandbox.pages import BadParameterError, Query, district_list_body, list_body, single_body
from roster_pipeline.sandbox.state import Sandbox

JSON = "application/json; charset=utf-8"
HTML = "<!DOCTYPE html>\n<html><head><title>Clever</title></head><body><h1>{}</h1></body></html>\n"

# kind -> the relations that one object of this kind has
RELATIONS: dict[Kind, tuple[str, ...]] = {
    "schools": ("district", "users", "sections", "courses", "terms"),
    "sections": ("district", "users", "school", "course", "term"),
    "users": ("district", "schools", "sections", "mystudents", "myteachers", "mycontacts"),
    "courses": ("district", "schools", "sections"),
    "terms": ("district", "schools", "sections"),
}


class NotFoundError(LookupError):
    """No record has this id, or the application may not see it."""


def routes(sandbox: Sandbox) -> list[Route]:
    """The routes of both hosts. Any other path gets Clever's HTML page with status 404."""
    api = _Api(sandbox)
    found = [Route("/oauth/tokens", api.tokens)]
    for version in ("/v3.0", "/v3.1"):
        found += [
            Route(f"{version}/{{kind}}", api.data),
            Route(f"{version}/{{kind}}/{{id}}", api.data),
            Route(f"{version}/{{kind}}/{{id}}/{{relation}}", api.data),
        ]
    return found


def html_error(status: int, title: str, headers: dict[str, str] | None = None) -> HTMLResponse:
    """An HTML error page, like those of Clever's servers and load balancers."""
    return HTMLResponse(HTML.format(title), status, headers)


def json_message(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error of the Data API: `{"message": ...}`."""
    return Response(encode({"message": message}), status, headers, media_type=JSON)


class _Api:
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def tokens(self, request: Request) -> Response:
        """The flat token list, for the application's own credentials only."""
        if not self._is_application(request.headers.get("authorization", "")):
            body = {"error": "invalid_client", "error_description": "The client credentials are not valid."}
            return Response(encode(body), 401, media_type=JSON)
        query = _query(request)
        owner_type, district = query.get("owner_type"), query.get("district")
        listed = [
            token
            for token in self._sandbox.tokens()
            if owner_type in (None, "district") and (not district or district == token["owner"]["id"])
        ]
        return Response(encode({"data": listed, "links": [{"rel": "self", "uri": query.uri}]}), media_type=JSON)

    def _is_application(self, authorization: str) -> bool:
        scheme, _, value = authorization.partition(" ")
        expected = f"{self._sandbox.client_id}:{self._sandbox.client_secret}"
        try:
            return scheme.lower() == "basic" and b64decode(value).decode() == expected
        except ValueError:
            return False

    async def data(self, request: Request) -> Response:
        """Any path of the Data API."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        with self._sandbox.lock:
            allowed, headers = self._sandbox.limits.use(token)
            district = self._sandbox.authorised(token) if scheme.lower() == "bearer" else None
        if not allowed:
            return Response(b"", 429, headers)
        if district is None:
            return json_message(401, "Unauthorized", headers)
        kind, key, relation = (request.path_params.get(name) for name in ("kind", "id", "relation"))
        try:
            with district.lock:
                body = _answer(district, _query(request), str(kind), key, relation)
        except BadParameterError as error:
            return json_message(error.status, str(error), headers)
        except NotFoundError:
            return json_message(404, "Resource not found", headers)
        if body is None:
            return html_error(404, "Page not found", headers)
        return Response(body, headers=headers, media_type=JSON)


def _query(request: Request) -> Query:
    return Query(request.url.path, request.url.query)


def _answer(district: District, query: Query, kind: str, key: str | None, relation: str | None) -> bytes | None:
    """The body for a path; None if Clever has no such path."""
    if kind == "districts":
        return _district_answer(district, query, key, relation)
    for known in KINDS:
        if kind == known and key is None:
            role = _role(query, ROLES) if known == "users" else None
            return list_body(district, known, district.shared(known, role), query)
        if kind == known and key is not None and (relation is None or relation in RELATIONS[known]):
            if not district.is_shared(known, key):
                raise NotFoundError
            if relation is None:
                return single_body(district.records[known][key], query, known, key, RELATIONS[known])
            return _related(district, query, known, key, relation)
    return None


def _district_answer(district: District, query: Query, key: str | None, relation: str | None) -> bytes | None:
    if relation is not None:
        return None
    if key is None:
        return district_list_body(district, query)
    if key != district.id:
        raise NotFoundError
    return single_body(encode(district.record), query, "districts", key, ())


def _related(district: District, query: Query, kind: Kind, key: str, relation: str) -> bytes:
    record = district.get(kind, key)
    match kind, relation:
        case _, "district":
            return single_body(encode(district.record), query, "districts", district.id, ())
        case "sections", "school" | "course" | "term":
            other: Kind = "schools" if relation == "school" else "courses" if relation == "course" else "terms"
            target = record.get("term_id" if relation == "term" else relation)
            if not isinstance(target, str) or not district.is_shared(other, target):
                raise NotFoundError
            return single_body(district.records[other][target], query, other, target, RELATIONS[other])
        case _:
            listed, ids = _related_list(district, query, kind, key, relation, record)
            return list_body(district, listed, ids, query)


def _related_list(district: District, query: Query, kind: Kind, key: str, relation: str, record: Record) -> tuple[Kind, list[str]]:
    """Kind and ids of the list that a relation of one object leads to, ascending."""
    primary = query.get("primary") == "true"

    def those(kind: Kind, ids: object) -> tuple[Kind, list[str]]:
        listed = ids if isinstance(ids, list) else []
        return kind, sorted({id_ for id_ in listed if isinstance(id_, str) and district.is_shared(kind, id_)})

    def matching(kind: Kind, needle: str, matches: Callable[[Record], bool], *name: object) -> tuple[Kind, list[str]]:
        return kind, district.related(kind, needle, (relation, *name), matches)

    def sections_of(other: str, field: str) -> list[Record]:
        return [
            section
            for id_, section in district.holding("sections", [other])
            if _mentions(section, field, other) and district.is_shared("sections", id_)
        ]

    match kind, relation:
        case "schools", "users":
            role = _role(query, ("staff", "student", "teacher"))
            return matching("users", key, lambda user: _belongs(user, key, role, primary=primary), role, primary)
        case "sections", "users":
            role = _role(query, ("student", "teacher"))
            fields = [field for field in ("students", "teachers") if role is None or field == f"{role}s"]
            return those("users", [user for field in fields for user in record.get(field) or []])
        case "users", "schools":
            return those("schools", schools_of(record, primary=primary))
        case "users", "sections":
            return matching("sections", key, lambda section: _mentions(section, "students", key) or _mentions(section, "teachers", key))
        case "users", "mystudents":
            return those("users", [user for section in sections_of(key, "teachers") for user in section["students"]])
        case "users", "myteachers":
            return those("users", [user for section in sections_of(key, "students") for user in section["teachers"]])
        case "users", "mycontacts":
            return matching("users", key, lambda user: _is_contact_of(user, key))
        case "schools" | "courses" | "terms", "sections":
            field = {"schools": "school", "courses": "course"}.get(kind, "term_id")
            return matching("sections", key, lambda section: section.get(field) == key)
        case _:  # related through sections: a school's courses and terms, a course's or term's schools
            other: Kind = "schools" if relation == "schools" else "courses" if relation == "courses" else "terms"
            _, between = _related_list(district, query, kind, key, "sections", record)
            field = {"schools": "school", "courses": "course"}.get(other, "term_id")
            return those(other, [district.get("sections", id_).get(field) for id_ in between])


def _role(query: Query, known: tuple[str, ...]) -> str | None:
    role = query.get("role")
    if role is not None and role not in known:
        raise BadParameterError(400, f"role must be one of {', '.join(known)}")
    return role


def _belongs(user: Record, school: str, role: str | None, *, primary: bool) -> bool:
    roles = {name: details for name, details in roles_of(user).items() if name == role or (role is None and name != "contact")}
    return school in schools_of({"roles": roles}, primary=primary)


def _mentions(section: Record, field: str, user: str) -> bool:
    return user in (section.get(field) or [])


def _is_contact_of(user: Record, student: str) -> bool:
    return any(item["student"] == student for item in roles_of(user).get("contact", {}).get("student_relationships", []))
