"""The list of districts that are connected to the application, each with its token. Tokens live in memory only (R3.1).

Does not belong here: data requests, and what a new or removed connection means (R11.7).
"""

from hashlib import sha256
from typing import Annotated

from msgspec import Meta, Struct
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


class Token(Struct):
    """One entry of the list, which has no inner `data`. The pattern rejects tokens that cannot be sent in a header."""

    owner: Owner
    access_token: Annotated[str, Meta(pattern=r"^[!-~]+\Z")]
    created: str = ""


class TokenBody(Struct):
    """A page of the list. Clever does not document paging for it."""

    data: list[Token]
    links: list[Link] = []


class TokenListing(dict[str, SecretStr]):
    """The token of each connected district, by its Clever id. It is made when the list is requested, and filled afterwards.

    Attributes:
        client: the SHA-256 of the client id, in hex.
    """

    def __init__(self, client_id: str, clock: Clock) -> None:
        super().__init__()
        self.client = sha256(client_id.encode()).hexdigest()
        self._monotonic = clock.monotonic
        self._began = clock.monotonic()

    def listing(self) -> Listing:
        """The connected districts without their tokens (R11.7)."""
        return Listing(frozenset(self), self._monotonic() - self._began, self.client)


def list_tokens(settings: Settings, *, deadline: Deadline | None = None, stats: PullStats | None = None) -> TokenListing:
    """The token of every connected district. The list is complete, or this raises.

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
    tokens: list[Token] = []
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
            tokens += body.data
            cursor = cursors.following(body.links)
            if cursor is None:
                break
            params["starting_after"] = cursor
    # A rotated token may be listed together with the old one. The newest counts; if two are equally new, the later one in the list.
    newest = sorted((token for token in tokens if token.owner.type == "district"), key=lambda token: token.created)
    listing.update((token.owner.id, SecretStr(token.access_token)) for token in newest)
    return listing
