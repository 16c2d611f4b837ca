-- Columns and a table that make a sync of unchanged data cheap: the digest of each record of the last accepted snapshot, and the state of
-- each unchanged district.

-- A hash of the bytes that Clever sent, and of the code that made the row. Null: the record has a finding; every pull validates it again.
alter table staging.schools add column digest uuid;
alter table staging.terms add column digest uuid;
alter table staging.courses add column digest uuid;
alter table staging.sections add column digest uuid;
alter table staging.users add column digest uuid;

-- Districts whose last applied sync held nothing and used no approval. While both fingerprints are the same, nothing has changed since that
-- sync. If it also wrote nothing, the next sync repeats its result.
create table ops.settled (
    district_id bigint primary key references app.districts (district_id),
    sync_id bigint not null references ops.syncs (sync_id) on delete cascade, -- the sync whose counts and quarantine are still true
    snapshot text not null, -- fingerprint of everything that Clever sent
    state text not null, -- fingerprint of everything else that the plan depends on
    since_sync_id bigint not null -- the sync that compared everything
);
create index settled_sync on ops.settled (sync_id); -- for removing an old sync
