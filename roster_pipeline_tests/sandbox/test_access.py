"""Tokens, credentials and the rate limit."""

from collections.abc import Iterator

import pytest
import requests

from roster_pipeline.errors import UsageError
from roster_pipeline.sandbox import District, Sandbox, SandboxServer, generate_district

from .client import Client


def test_token_list_is_flat_and_names_the_district(clever: Client) -> None:
    """R3.1: one token per connected district, without the inner `data` that other lists have."""
    [token] = clever.tokens()
    assert token["owner"] == {"type": "district", "id": clever.district.id}
    assert token["access_token"] == clever.district.access_token
    assert len(str(token["access_token"])) == 40
    assert {"id", "created", "scopes"} < set(token)
    assert clever.tokens(f"district={clever.district.id}") == [token]
    assert clever.tokens("district=" + "0" * 24) == []
    assert clever.tokens("owner_type=user") == []


@pytest.mark.parametrize("authorization", [None, "Basic c2FuZGJveDp3cm9uZw==", "Basic %%%", "Bearer sandbox-secret"])
def test_token_list_refuses_other_credentials_in_oauth_style(clever: Client, authorization: str | None) -> None:
    """R3.1: the error body has OAuth's format, not the Data API's."""
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = requests.get(f"{clever.url}/oauth/tokens", headers=headers, timeout=10)
    assert answer.status_code == 401
    assert set(answer.json()) == {"error", "error_description"}


def test_data_api_refuses_unknown_tokens(clever: Client) -> None:
    """R3.3: 401 with a message, also without a token."""
    for headers in ({}, {"Authorization": "Bearer " + "0" * 40}, {"Authorization": f"Basic {clever.district.access_token}"}):
        answer = requests.get(f"{clever.url}/v3.0/users", headers=headers, timeout=10)
        assert (answer.status_code, list(answer.json())) == (401, ["message"])


def test_rotated_token_replaces_the_old_one(clever: Client) -> None:
    """R3.1: a client that lists the tokens again after a 401 can go on."""
    clever.sandbox.change().rotate_token()
    assert clever.get("/v3.0/schools").status_code == 401
    clever.session.headers["Authorization"] = f"Bearer {clever.tokens()[0]['access_token']}"
    assert clever.get("/v3.0/schools").status_code == 200


def test_revoked_token_stays_listed_but_is_refused(clever: Client) -> None:
    """R3.3: a second 401 after listing again is final."""
    clever.sandbox.change().revoke_token()
    assert len(clever.tokens()) == 1
    assert clever.get("/v3.0/schools").status_code == 401


def test_disconnected_district_leaves_the_list(clever: Client) -> None:
    """R11.7: its records have the same ids when it connects again."""
    before = clever.walk("/v3.0/users")
    clever.sandbox.change().disconnect()
    assert clever.tokens() == []
    assert clever.get("/v3.0/schools").status_code == 401
    clever.sandbox.change().connect()
    assert len(clever.tokens()) == 1
    assert clever.walk("/v3.0/users") == before


def test_several_districts() -> None:
    """Districts of two seeds differ, and the same one twice is refused. With several, a change must name one."""
    sandbox = Sandbox(generate_district(1, 10), generate_district(2, 10))
    assert len({token["access_token"] for token in sandbox.tokens()}) == 2
    with pytest.raises(UsageError, match="already"):
        sandbox.add(generate_district(2, 10))
    with pytest.raises(UsageError, match="name one"):
        sandbox.change()


class _Time:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> _Time:
    return _Time()


@pytest.fixture
def limited(time: _Time) -> Iterator[Client]:
    """A client of a server with a limit of three requests a minute and token."""
    one, other = (District({"id": key * 24, "name": key}) for key in "ab")
    with SandboxServer(Sandbox(one, other, rate_limit=3, clock=time)) as server:
        client = Client(server, one)
        with client.session:
            yield client


def test_rate_limit_is_a_fixed_window_per_token(limited: Client, time: _Time) -> None:
    """R3.3: headers on every answer, an empty 429, and requests are allowed again at the reset. Each token has its own limit."""
    remaining, statuses = [], []
    for path in ("/v3.0/schools", "/v3.0/users/x", "/v3.0/nothing"):
        answer = limited.get(path)
        statuses.append(answer.status_code)
        remaining.append(
            (answer.headers["X-RateLimit-Limit"], answer.headers["X-RateLimit-Remaining"], answer.headers["X-RateLimit-Bucket"])
        )
    assert remaining == [("3", "2", "bearer"), ("3", "1", "bearer"), ("3", "0", "bearer")]
    assert statuses == [200, 404, 404]
    refused = limited.get("/v3.0/schools")
    assert (refused.status_code, refused.content, refused.headers["X-RateLimit-Remaining"]) == (429, b"", "0")
    reset = int(refused.headers["X-RateLimit-Reset"])
    assert reset % 60 == 0
    assert 0 < reset - time.now <= 60
    other = limited.sandbox.district("b" * 24)
    assert requests.get(f"{limited.url}/v3.0/schools", headers={"Authorization": f"Bearer {other.access_token}"}, timeout=10).ok
    time.now = reset - 0.5
    assert limited.get("/v3.0/schools").status_code == 429
    time.now = reset
    assert limited.get("/v3.0/schools").status_code == 200


def test_without_a_limit_nothing_is_refused(limited: Client) -> None:
    """The limit can be removed while the server runs. The headers stay."""
    limited.sandbox.limits.limit = None
    assert [limited.get("/v3.0/schools").status_code for _ in range(5)] == [200] * 5
    assert limited.get("/v3.0/schools").headers["X-RateLimit-Limit"] == "1200"
