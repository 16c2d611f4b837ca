"""Tokens: the listing, the token of a district, a rotated one, a revoked one (R3.1, R11.7)."""

import logging
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.clever.tokens import list_tokens
from roster_pipeline.errors import PermanentError, TransientError
from roster_pipeline.settings import Settings
from roster_pipeline.source.vocabulary import Collection

from .conftest import FakeTime
from .scripted import CLIENT_SECRET, DISTRICT, FRESH_TOKEN, TOKEN, Reply, ScriptedClever, page, school, tokens

MakePull = Callable[..., DistrictPull]
MakeSettings = Callable[..., Settings]
LISTING = "/oauth/tokens"
SCHOOLS = "/v3.0/schools"


def revealed(listing: dict[str, SecretStr]) -> dict[str, str]:
    return {district: token.get_secret_value() for district, token in listing.items()}


def test_the_listing(clever: ScriptedClever, make_settings: MakeSettings) -> None:
    """R3.1: one request with Basic authorization, for districts. The tokens are not printed."""
    clever.script(LISTING, Reply(tokens(d1="one", d2="two")))
    listing = list_tokens(make_settings())
    assert revealed(listing) == {"d1": "one", "d2": "two"}
    assert "one" not in repr(listing)
    (seen,) = clever.seen
    assert seen.query == {"owner_type": "district"}
    assert seen.authorization == "Basic Y2xpZW50Om1hcmtlci1zZWNyZXQ="


def test_an_empty_listing_is_valid(clever: ScriptedClever, make_settings: MakeSettings) -> None:
    """R11.7: an empty listing is not an unreadable one."""
    clever.script(LISTING, Reply({"data": []}))
    assert list_tokens(make_settings()) == {}


def test_pages_of_tokens_are_walked(clever: ScriptedClever, make_settings: MakeSettings) -> None:
    """R3.2: the listing is complete, or it raises."""
    first = tokens(d1="one")
    first["links"].append({"rel": "next", "uri": "/oauth/tokens?owner_type=district&starting_after=t1"})
    clever.script(LISTING, Reply(first), Reply(tokens(d2="two")))
    assert revealed(list_tokens(make_settings())) == {"d1": "one", "d2": "two"}
    clever.script(LISTING, Reply(first), Reply(first))
    with pytest.raises(TransientError, match="back to a page"):
        list_tokens(make_settings())


def test_the_newest_token_of_a_district_counts(clever: ScriptedClever, make_settings: MakeSettings) -> None:
    """A rotated token may be listed together with the old one, in any order. Other owners are not districts."""
    body = tokens(d1="new", d2="x", d3="y")
    old = body["data"][0] | {"created": "2025-01-01T00:00:00.000Z", "access_token": "old"}
    user = {"id": "u", "owner": {"type": "user", "id": "d9"}, "access_token": "il"}
    clever.script(LISTING, Reply(body | {"data": [*body["data"], old, user]}))
    assert revealed(list_tokens(make_settings())) == {"d1": "new", "d2": "x", "d3": "y"}


def entry(**changes: Any) -> dict[str, Any]:
    """The entry of another district, with some other values; `...` leaves one out."""
    values = {
        "id": "t9",
        "created": "2026-01-01T00:00:00.000Z",
        "owner": {"type": "district", "id": "d9"},
        "access_token": "nine",
    } | changes
    return {name: value for name, value in values.items() if value is not ...}


BROKEN_TOKENS: list[Any] = [None, "", 5, f"{TOKEN}\n", "a b", [], {}, ...]
BROKEN_OWNERS: list[Any] = [
    None,
    ...,
    {},
    [],
    5,
    {"type": "district"},
    {"id": "d9"},
    {"type": "district", "id": None},
    {"type": "district", "id": ""},
]


@pytest.mark.parametrize("token", BROKEN_TOKENS)
def test_an_entry_without_a_usable_token_concerns_its_district_alone(
    token: Any, clever: ScriptedClever, make_pull: MakePull, make_settings: MakeSettings
) -> None:
    """R3.1: the district is connected, and its own sync fails. Everybody else syncs."""
    body = tokens(**{DISTRICT: TOKEN})
    clever.script(LISTING, Reply(body | {"data": [entry(access_token=token), *body["data"]]}))
    clever.script(SCHOOLS, Reply(page()))
    with make_pull() as pull:
        list(pull.pages(Collection.SCHOOLS))
    listing = list_tokens(make_settings()).listing()
    assert (listing.district_ids, listing.without_token, listing.unreadable) == (frozenset({DISTRICT, "d9"}), frozenset({"d9"}), 0)
    with pytest.raises(PermanentError, match="without a token that can be used") as caught, make_pull("d9"):
        pass
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("item", [*(entry(owner=each) for each in BROKEN_OWNERS), None, 5, "x", [], {}])
def test_an_entry_without_an_owner_is_counted(item: Any, clever: ScriptedClever, make_settings: MakeSettings) -> None:
    """R3.1, R11.7: nobody knows which district it is about. The others have their tokens."""
    body = tokens(d1="one", d2="two")
    clever.script(LISTING, Reply(body | {"data": [body["data"][0], item, body["data"][1]]}))
    listing = list_tokens(make_settings())
    assert revealed(listing) == {"d1": "one", "d2": "two"}
    assert (listing.without_token, listing.unreadable) == (frozenset(), 1)


@pytest.mark.parametrize("created", [None, 5, ..., "", {}])
def test_a_token_without_a_time_is_usable(created: Any, clever: ScriptedClever, make_settings: MakeSettings) -> None:
    """R3.1: only the choice between two tokens of one district needs it; any other is newer."""
    clever.script(LISTING, Reply({"data": [entry(created=created), entry(owner={"type": "district", "id": "d8"})], "links": []}))
    assert set(list_tokens(make_settings())) == {"d8", "d9"}
    clever.script(LISTING, Reply({"data": [entry(access_token="new"), entry(created=created)], "links": []}))
    assert revealed(list_tokens(make_settings())) == {"d9": "new"}


def test_an_older_token_is_used_where_the_newest_cannot_be(clever: ScriptedClever, make_settings: MakeSettings) -> None:
    """R3.1: a district with one usable entry is not without a token."""
    clever.script(LISTING, Reply({"data": [entry(), entry(created="2027-01-01T00:00:00.000Z", access_token=None)], "links": []}))
    listing = list_tokens(make_settings())
    assert (revealed(listing), listing.without_token) == ({"d9": "nine"}, frozenset())


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {}}, [], {"data": [], "links": [{"rel": "following", "uri": "/x"}]}])
def test_a_listing_is_never_partial(body: object, clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.2, R11.7: a listing that is no list, or does not end, is unreadable, so no district counts as disconnected."""
    clever.script(LISTING, Reply(body))
    with pytest.raises(TransientError), make_pull():
        pass


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials(status: int, clever: ScriptedClever, make_pull: MakePull, caplog: pytest.LogCaptureFixture) -> None:
    """R3.3: a permanent error with a clear text, without the secret."""
    caplog.set_level(logging.DEBUG)
    clever.script(LISTING, Reply({"error": "invalid_client"}, status))
    with pytest.raises(PermanentError, match="refused the client id/secret") as caught, make_pull():
        pass
    assert len(clever.seen) == 1
    assert CLIENT_SECRET not in "".join(traceback.format_exception(caught.value)) + caplog.text


@pytest.mark.parametrize("missing", [{"clever_client_id": None}, {"clever_client_secret": None}, {"clever_client_secret": ""}])
def test_missing_credentials(missing: dict[str, None], clever: ScriptedClever, make_settings: MakeSettings) -> None:
    """The message says which variables to set. There is no request."""
    with pytest.raises(PermanentError, match="CLEVER_CLIENT_ID and CLEVER_CLIENT_SECRET"):
        list_tokens(make_settings(**missing))
    assert clever.seen == []


def test_a_listing_is_retried(clever: ScriptedClever, make_pull: MakePull, fake_time: FakeTime) -> None:
    """R3.3: on the other host too."""
    clever.script(LISTING, Reply(status=503), Reply(tokens(**{DISTRICT: TOKEN})))
    with make_pull():
        pass
    assert len(fake_time.waits) == 1


def test_a_district_without_a_token(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R11.7: a permanent error, without a request to the data API."""
    clever.script(LISTING, Reply(tokens(other=TOKEN)))
    with pytest.raises(PermanentError, match="no token: the district has not connected") as caught, make_pull():
        pass
    assert caught.value.district == DISTRICT
    assert clever.paths() == []


def test_a_rotated_token(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.1: after the first 401 the tokens are listed again, and the pull continues with the new token, on the same page."""
    clever.script(LISTING, Reply(tokens(**{DISTRICT: TOKEN})), Reply(tokens(**{DISTRICT: FRESH_TOKEN, "new": "x"})))
    first = Reply(page(school("a"), following="/v3.0/schools?starting_after=a"))
    clever.script(SCHOOLS, first, Reply(status=401), Reply(page(school("b"))))
    with make_pull() as pull:
        pages = list(pull.pages(Collection.SCHOOLS))
    assert [record.id for found in pages for record in found.records] == ["a", "b"]
    data = [seen for seen in clever.seen if seen.path == SCHOOLS]
    assert [seen.authorization for seen in data] == [f"Bearer {token}" for token in (TOKEN, TOKEN, FRESH_TOKEN)]
    assert [seen.query.get("starting_after") for seen in data] == [None, "a", "a"]
    assert pull.tokens is not None
    assert set(pull.tokens) == {DISTRICT, "new"}


def test_a_second_401_is_final(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.1: the tokens are listed again only once in a pull, also in another collection."""
    clever.script(SCHOOLS, Reply(status=401), Reply(page()))
    clever.script("/v3.0/terms", Reply(status=401), Reply(page()))
    with make_pull() as pull:
        list(pull.pages(Collection.SCHOOLS))
        with pytest.raises(PermanentError, match="401") as caught:
            list(pull.pages(Collection.TERMS))
    assert "still connected" in str(caught.value)
    assert [seen.path for seen in clever.seen].count(LISTING) == 2
    assert clever.paths().count("/v3.0/terms") == 1


def test_several_requests_with_an_old_token(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.1: all of them are refused at once, and the tokens are listed again once."""
    gate = threading.Event()
    collections = [Collection.SCHOOLS, Collection.TERMS, Collection.COURSES]
    clever.script(LISTING, Reply(tokens(**{DISTRICT: "old"})), Reply(tokens(**{DISTRICT: TOKEN})))
    for collection in collections:
        clever.script(f"/v3.0/{collection.resource}", Reply(status=401, gate=gate), Reply(page()))
    with make_pull() as pull:
        pull.request(collections)
        assert all(clever.wait_for_requests(f"/v3.0/{collection.resource}", 1) for collection in collections)
        gate.set()
        assert [[one.number for one in pull.pages(collection)] for collection in collections] == [[1]] * 3
    assert [seen.path for seen in clever.seen].count(LISTING) == 2


def test_a_token_revoked_during_the_pull(clever: ScriptedClever, make_pull: MakePull) -> None:
    """R3.1, R11.7: the new listing no longer has the district, and the caller can read it."""
    clever.script(LISTING, Reply(tokens(**{DISTRICT: TOKEN})), Reply(tokens(other="x")))
    clever.script(SCHOOLS, Reply(status=401))
    with make_pull() as pull, pytest.raises(PermanentError, match="no token"):
        list(pull.pages(Collection.SCHOOLS))
    assert pull.tokens is not None
    assert set(pull.tokens) == {"other"}


def test_tokens_passed_in_are_not_listed_again(clever: ScriptedClever, make_settings: MakeSettings) -> None:
    """R3.1: the listing of the sync is used. A district that is not in it is not connected."""
    clever.script(SCHOOLS, Reply(page()))
    with DistrictPull(make_settings(), DISTRICT, keep_student_email=False, tokens={DISTRICT: SecretStr(TOKEN)}) as pull:
        list(pull.pages(Collection.SCHOOLS))
    assert clever.paths() == [seen.path for seen in clever.seen] == [SCHOOLS]
    with pytest.raises(PermanentError, match="no token"), DistrictPull(make_settings(), DISTRICT, keep_student_email=False, tokens={}):
        pass
