"""The list of districts that are connected to the application, each with its token. Tokens live in memory only (R3.1).

Does not belong here: data requests, and what a new or removed connection means (R11.7).
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct
from pydantic import SecretStr
from requests.auth import HTTPBasicAuth

from roster_pipeline.clever.decode import Link
from roster_pipeline.clever.errors import RefusedError
from roster_pipeline.clever.http import CleverHttp, Clock, Deadline
from roster_pipeline.clever.paging import Cursors
from roster_pipeline.errors import PermanentError
from roster_pipeline.settings import Settings
from roster_pipeline.source.protocol import Listing, PullStats

_PATH = "/oauth/tokens"


class Owner(Struct):
    """The owner of a token. A new district becomes a row with this id (R11.7)."""

    type: str
    id: Annotated[str, Meta(pattern=r"^[0-9A-Za-z_-]{1,64}\Z")]


class Entry(Struct):
    """One entry of the list, which has no inner `data`. Its token is read by itself, because it may be unusable."""

    owner: Owner
    access_token: Raw = Raw(b"null")
    created: Raw = Raw(b"null")


class TokenBody(Struct):
    """A page of the list. Clever does not document paging for it. Each entry is decoded by itself, because one may be bad (R3.1)."""

    data: list[Raw]
    links: list[Link] = []


# A token that can be sent in a header.
_TOKEN = msgspec.json.Decoder(Annotated[str, Meta(pattern=r"^[!-~]+\Z")])
_CREATED = msgspec.json.Decoder(str)


class TokenListing(dict[str, SecretStr]):
    """The usable token of each connected district, by its Clever id. It is made when the list is requested, and filled afterwards.

    Attributes:
        client: the SHA-256 of the client id, in hex.
        without_token: the connected districts that are listed without a usable token.
        unreadable: how many entries do not say which district they belong to.
    """

    def __init__(self, client_id: str, clock: Clock) -> None:
        super().__init__()
        self.client = sha256(client_id.encode()).hexdigest()
        self._monotonic = clock.monotonic
        self._began = clock.monotonic()
        self.without_token: frozenset[str] = frozenset()
        self.unreadable = 0

    def listing(self) -> Listing:
        """The connected districts without their tokens (R11.7)."""
        age = self._monotonic() - self._began
        return Listing(frozenset(self) | self.without_token, age, self.client, self.without_token, self.unreadable)

    def fill(self, entries: Sequence[Raw]) -> None:
        """Read all entries of the list. Other owners than districts are left out.

        A rotated token may be listed together with the old one. The newest usable one counts; of two that are equally new, the later one in
        the list.
        """
        owned: list[tuple[str, str, SecretStr | None]] = []
        for each in entries:
            try:
                entry = msgspec.json.decode(each, type=Entry)
            except msgspec.ValidationError:
                self.unreadable += 1
                continue
            if entry.owner.type == "district":
                token = _read(_TOKEN, entry.access_token)
                owned.append((_read(_CREATED, entry.created) or "", entry.owner.id, SecretStr(token) if token else None))
        self.update((clever_id, token) for _, clever_id, token in sorted(owned, key=lambda each: each[0]) if token)
        self.without_token = frozenset(clever_id for _, clever_id, _ in owned) - self.keys()


def _read(decoder: "msgspec.json.Decoder[str]", raw: Raw) -> str | None:
    """The text; None if it is not what the decoder takes."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        return None


def list_tokens(settings: Settings, *, deadline: Deadline | None = None, stats: PullStats | None = None) -> TokenListing:
    """The token of every connected district. The list is complete, or this raises. A bad entry concerns nobody else (R3.1).

    Args:
        deadline: the deadline of the pull that it belongs to; by default a new one of ROSTER_PULL_DEADLINE_S.
        stats: counts the requests.

    Raises:
        PermanentError: no credentials are set, or Clever refuses them.
        TransientError: Clever could not be read.
    """
    if not settings.clever_client_id or settings.clever_client_secret is None or not settings.clever_client_secret.get_secret_value():
        raise PermanentError(
            "The application's credentials at Clever are not set.", hint="Set CLEVER_CLIENT_ID and CLEVER_CLIENT_SECRET (see .env.example)."
        )
    # As bytes, because requests would encode text as Latin-1. If that failed, the exception would hold the secret.
    auth = HTTPBasicAuth(settings.clever_client_id.encode(), settings.clever_client_secret.get_secret_value().encode())
    entries: list[Raw] = []
    cursors = Cursors(settings.clever_auth_url, _PATH)
    deadline = deadline or Deadline(settings.roster_pull_deadline_s)
    listing = TokenListing(settings.clever_client_id, deadline.clock)
    with CleverHttp(settings.clever_auth_url, settings, deadline=deadline, stats=stats or PullStats()) as http:
        params = {"owner_type": "district"}
        while True:
            try:
                body = http.get(_PATH, params, TokenBody, auth=auth)
            except RefusedError as error:
                if error.status not in {401, 403}:
                    raise
                raise PermanentError(
                    "Clever refused the client id/secret.",
                    hint="Check CLEVER_CLIENT_ID, CLEVER_CLIENT_SECRET and CLEVER_AUTH_URL.",
                    path=_PATH,
                ) from None
            entries += body.data
            cursor = cursors.following(body.links)
            if cursor is None:
                break
            params["starting_after"] = cursor
    listing.fill(entries)
    return listing
