"""A listing of tokens with entries that cannot be used: who is connected, and what is reported (R3.1, R11.7)."""

from roster_pipeline.connections.listings import Reconciled
from roster_pipeline_tests.connections.test_listings import A, B, C, Listings, listings

__all__ = ["listings"]


def test_a_listing_with_an_entry_without_an_owner_disconnects_nobody(listings: Listings) -> None:
    """R3.1, R11.7: the entry may be that of the district that seems to be missing. New districts are noticed, and it is reported once."""
    listings.ingest(A, B)
    assert listings.ingest(A, C, unreadable=1) == Reconciled([C], [], [], [])
    assert listings.statuses() == {A: "requested", B: "requested", C: "requested"}
    listings.ingest(A, C, unreadable=1)
    assert listings.rows("select facts from ops.alerts where kind = 'tokens_unusable'") == [({"without_token": [], "unreadable": 1},)]
    assert listings.ingest(A, C) == Reconciled([], [], [], [B])


def test_a_district_without_a_usable_token_is_connected_and_reported(listings: Listings) -> None:
    """R3.1, R11.7: it is not lost. There is one alert for each set of such districts."""
    listings.ingest(A, B)
    for _ in range(2):
        assert listings.ingest(A, B, without_token=frozenset({B})) == Reconciled([], [], [], [])
    listings.ingest(A, B, without_token=frozenset({A, B}))
    reported = listings.rows("select facts ->> 'without_token' from ops.alerts where kind = 'tokens_unusable' order by alert_id")
    assert reported == [(f'["{B}"]',), (f'["{A}", "{B}"]',)]
