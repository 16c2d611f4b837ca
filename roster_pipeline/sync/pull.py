"""Roster source -> landing: reads every collection of one district, page by page, so that memory stays flat (R3.5).

Belongs here: the order in which a source is read, and what the pull costs. Does not belong here: which source it is (`sources.py`), how it
is read (`clever/`), and what the rows mean (`dbt_like_sql/`).
"""

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime

import pyarrow

from roster_pipeline.database.engine import psycopg_connection
from roster_pipeline.database.runner import Step
from roster_pipeline.database.session import own_session
from roster_pipeline.process_memory import give_back_large_blocks
from roster_pipeline.settings import Settings
from roster_pipeline.source.protocol import OnListing, RosterSource, SourceDistrict
from roster_pipeline.source.shape import refuse_vanished
from roster_pipeline.source.vocabulary import Collection
from roster_pipeline.sync.frames import clean_text, frame_of
from roster_pipeline.sync.landing import Landing
from roster_pipeline.sync.restore import snapshot_index
from roster_pipeline.sync.session import PullResult, SyncContext
from roster_pipeline.sync.sources import OpenSource


def pull_into(
    context: SyncContext,
    settings: Settings,
    open_source: OpenSource,
    started_at: datetime,
    on_listing: OnListing = lambda _listing: None,
) -> PullResult:
    """Pull the unseen records of one district into a new landing of this session.

    Args:
        open_source: opens the source of the district.
        on_listing: called with every listing of connected districts that the source makes (R11.7).

    Raises:
        RosterError: the pull is not complete.
    """
    give_back_large_blocks()
    landing = Landing(psycopg_connection(context.connection), own_session(context.connection))
    source = open_source(settings, context.district, on_listing)
    source.index = snapshot_index(context.connection, context.district, source.code)
    with source:
        pulled = pull_district(source, landing, started_at=started_at, on_step=context.on_step)
    landing.leave_out_erased(context.district_id)
    return pulled


def pull_district(source: RosterSource, landing: Landing, *, started_at: datetime, on_step: Callable[[Step], None]) -> PullResult:
    """Load all unseen records of one district into the landing.

    Args:
        source: entered, with the index of the last accepted snapshot.

    Raises:
        RosterError: the pull is not complete, or the shape of the data has changed. The landing must not be used.
    """
    before = _clean_district(source.district())
    source.request(Collection)
    for collection in Collection:
        start = time.perf_counter()
        broken = Counter[str]()
        for page in source.pages(collection):
            if page.digests or page.findings:
                frame = frame_of(collection, page.columns, page.findings)
                landing.load(collection, page, frame)
                broken.update(each.rule for each in frame.findings)
                del frame
            del page
        landing.rows[collection] += source.index.count_seen(collection)
        had = source.index.sizes.get(collection, 0)
        refuse_vanished(collection, broken, records=landing.rows[collection], before=had, district=before.id)
        on_step(Step(f"clever.{collection}", landing.rows[collection], time.perf_counter() - start))
    after = _clean_district(source.district())
    # The first last_sync counts: data that Clever loaded during the pull is only partly in the snapshot (R3.7).
    landing.district(before, started_at)
    stats = source.stats
    cost = {
        "requests": stats.requests,
        "retries": stats.retries,
        "bytes": stats.bytes,
        "pages": sum(stats.pages.values()),
        "records": {collection.value: landing.rows[collection] for collection in Collection},
        "known": sum(source.index.count_seen(collection) for collection in Collection),
    }
    return PullResult(
        started_at,
        landing,
        moved=before.mark != after.mark,
        last_sync=before.last_sync,
        mark=before.mark,
        state=before.state,
        index=source.index,
        cost=cost,
    )


def _clean_district(district: SourceDistrict) -> SourceDistrict:
    """The district object with its texts as they are stored (R4.5)."""
    texts = [district.name, district.state, district.last_sync, district.last_changed]
    name, state, last_sync, last_changed = clean_text(pyarrow.array(texts, pyarrow.string())).to_pylist()
    return district._replace(name=name, state=state, last_sync=last_sync, last_changed=last_changed)
