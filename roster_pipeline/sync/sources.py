"""Which roster source a sync reads: the only file of `sync/` that names one.

Belongs here: opening the source of a district. Does not belong here: what every source has to offer (`source/protocol.py`), and how one
works (`clever/`).
"""

from collections.abc import Callable

from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.clever.tokens import TokenListing
from roster_pipeline.districts.agreement import District
from roster_pipeline.settings import Settings
from roster_pipeline.source.protocol import OnListing, RosterSource

# Makes the source of one district; reading begins when the source is entered. The last argument is called with every listing of connected
# districts that the source makes (R11.7). Raises PermanentError if the district has no agreement, because that says what may be read.
OpenSource = Callable[[Settings, District, OnListing], RosterSource]


def open_clever(settings: Settings, district: District, on_listing: OnListing, tokens: TokenListing | None = None) -> RosterSource:
    """The district at Clever. A student's e-mail and preferred name are decoded only if the profile stores them.

    Args:
        tokens: of all districts, if they have been listed already (R3.1).
    """
    rules = district.require_rules()
    return DistrictPull(
        settings,
        district.clever_id,
        keep_student_email=rules.student_email,
        prefer_name=rules.student_name == "preferred",
        tokens=tokens,
        on_listing=on_listing,
    )
