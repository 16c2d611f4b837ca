-- What makes a sync of unchanged data cheap: the digest of each record of the last accepted snapshot, and what the last sync of each
-- district left.

-- Of the bytes that Clever sent, together with the code that made the row of them. Null: something was found about the record, so it is
-- read anew every time.
alter table staging.schools add column digest uuid;
alter table staging.terms add column digest uuid;
alter table staging.courses add column digest uuid;
alter table staging.sections add column digest uuid;
alter table staging.users add column digest uuid;

-- A district whose last applied sync held nothing and used no approval. As long as both fingerprints are the same, nothing has changed
-- since that sync: where it had nothing to write either, its answer is repeated.
create table ops.settled (
    district_id bigint primary key references app.districts (district_id),
    sync_id bigint not null references ops.syncs (sync_id) on delete cascade, -- whose counts and quarantine still hold
    snapshot text not null, -- of everything that Clever sent
    state text not null, -- of everything else that the plan is made from
    since_sync_id bigint not null -- the sync that compared everything
);
create index settled_sync on ops.settled (sync_id); -- removing an old sync looks here
