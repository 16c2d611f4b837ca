-- Each part belongs to one subject.

-- Audit: who did what (R13.2).

create table ops.audit (
    audit_id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    act text not null,
    -- `kind:name`, as the program found it out itself (R13.1).
    principal text not null check (principal ~ '^[a-z]+:.'),
    -- What the person said, unchanged.
    given_name text check (given_name is null or btrim(given_name) <> ''),
    reason text,
    district_id bigint references app.districts,
    subject text,
    facts jsonb not null default '{}'
);
create index audit_by_district on ops.audit (district_id, at);

create function ops.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'ops.audit only grows: no row of it is changed or removed' using errcode = 'insufficient_privilege';
end
$$;
create trigger audit_only_grows before update or delete on ops.audit for each row execute function ops.refuse_change();
create trigger audit_is_never_emptied before truncate on ops.audit for each statement execute function ops.refuse_change();

-- Records that could not be read.

-- Brakes.

-- People.

-- Places: schools, classrooms, the agreement.

-- First syncs and connections.

-- Requests and the truth about syncs.

-- The database's surroundings.

-- The application writes these, and people read them in a terminal and in alerts. Older rows stay as they are.
alter table ops.syncs add constraint syncs_short_texts check (length(requested_by) <= 200 and length(reason) <= 2000) not valid;

-- Imports and findings.

-- An import is no sync. Its rows in the history have the person's act in ops.audit instead.
alter table ops.changes alter column sync_id drop not null;
alter table ops.changes add column audit_id bigint references ops.audit;
-- Not valid: every older row has a sync, and nobody has to wait until they are read.
alter table ops.changes add constraint changes_have_a_cause check (num_nonnulls(sync_id, audit_id) = 1) not valid;
-- Retention removes old changes of imports by their time.
create index changes_of_imports on ops.changes (changed_at) where sync_id is null;

-- What the audits of the last applied sync found. A sync writes only what differs from the one before.
create table ops.finding_records (
    district_id bigint not null references app.districts,
    rule text not null, -- the name of the audit
    resource text not null,
    clever_id text not null,
    records integer not null check (records > 0), -- a person can violate a rule of enrollments in several sections
    primary key (district_id, rule, resource, clever_id)
);
-- The sync that they are of.
create table ops.audited (
    district_id bigint primary key references app.districts,
    sync_id bigint not null references ops.syncs on delete cascade
);
create index audited_sync on ops.audited (sync_id); -- for removing an old sync

-- One row per offending record, so that each count of a sync is a list (R4.3).
create view ops.findings as
select found.district_id, found.rule, found.resource, found.clever_id, audited.sync_id
from ops.finding_records as found
inner join ops.audited as audited on found.district_id = audited.district_id
cross join lateral generate_series(1, found.records) as record;
