"""Clever -> landing: walks every collection of one district, page by page, so that memory stays flat (R3.5).

Belongs here: the order of the walk and what is measured about it. Does not belong here: HTTP (`clever/`) and the meaning of rows
(`dbt_like_sql/`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from roster_pipeline.clever.pull import DistrictPull
from roster_pipeline.database.runner import Step
from roster_pipeline.source.digests import Memory
from roster_pipeline.source.vocabulary import Collection
from roster_pipeline.sync.frames import frame_of
from roster_pipeline.sync.landing import Landing


@dataclass(frozen=True)
class PullResult:
    """A complete pull.

    Attributes:
        moved: the district's last_sync differs between the pull's start and end (R3.7).
        last_sync: of the district when the pull began, as Clever writes it: newer data at Clever has a later one.
        memory: the known records that were met; they are not in the landing yet.
        cost: requests, retries, bytes, pages and known records, for people who watch.
    """

    moved: bool
    last_sync: str | None
    memory: Memory
    cost: dict[str, Any]


def pull_district(pull: DistrictPull, landing: Landing, *, started_at: datetime, on_step: Callable[[Step], None]) -> PullResult:
    """Land everything that Clever shares of one district and that is not known already, or raise.

    Raises:
        RosterError: the pull is not complete; the landing is to be thrown away.
    """
    before = pull.district()
    for collection in Collection:
        start = time.perf_counter()
        for page in pull.pages(collection):
            if page.records or page.findings:
                landing.load(collection, page.decoded, frame_of(collection, page.records, page.findings))
            del page
        landing.rows[collection] += pull.memory.known(collection)
        on_step(Step(f"clever.{collection}", landing.rows[collection], time.perf_counter() - start))
    after = pull.district()
    # Of two last_syncs the earlier is the honest one: what was loaded while this walked is only partly in it (R3.7).
    landing.district(before, started_at)
    stats = pull.stats
    cost = {
        "requests": stats.requests,
        "retries": stats.retries,
        "bytes": stats.bytes,
        "pages": sum(stats.pages.values()),
        "records": {collection.value: landing.rows[collection] for collection in Collection},
        "known": sum(pull.memory.known(collection) for collection in Collection),
    }
    moved = before.last_sync != after.last_sync
    return PullResult(moved=moved, last_sync=before.last_sync, memory=pull.memory, cost=cost)
