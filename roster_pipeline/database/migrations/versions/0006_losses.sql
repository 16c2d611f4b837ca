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

-- A section that does not say its school is quarantined (R4.7). The next sync reads all records again, because the code has changed.
delete from staging.sections where school is null;
alter table staging.sections alter column school set not null;
-- Null: Clever did not send the teachers of the section (R4.7).
alter table staging.sections alter column teachers drop not null;

-- False: the pull has no record with this id, but an element that cannot be read (R4.8).
alter table staging.quarantined add column is_shown boolean not null default true;

-- The collections of the last accepted snapshot in which an element had no readable id (R4.8).
create table staging.unreadable (
    district_id bigint not null,
    collection text not null,
    primary key (district_id, collection)
);

-- Brakes.

-- A loss is a loss whatever table it is in (R7.3).
alter table ops.holds drop constraint holds_kind_check;
alter table ops.holds add constraint holds_kind_check check (
    kind in (
        'empty_collection', 'district_role', 'school_role', 'classrooms', 'enrollments', 'identities', 'relinks', 'new_admins', 'licenses',
        'initial'
    )
);
-- One hold per role.
alter table ops.holds add constraint holds_role_check check (
    (role is not null) = (kind in ('district_role', 'school_role', 'enrollments', 'new_admins'))
);

create table reconcile.held_enrollments (
    district_id bigint not null,
    classroom_id bigint not null,
    user_id bigint not null,
    role text not null,
    held_by text not null,
    primary key (district_id, classroom_id, user_id, role)
);
create index held_enrollments_user on reconcile.held_enrollments (district_id, user_id);

-- People.

-- What Clever gave as username when it last gave anything (R5.3), whatever username the user got. The rest is filled here once, because
-- otherwise the first sync of this release would write every user, with a row of history each.
alter table app.users add column district_username text;
update app.users as users
set district_username = staged.username
from staging.users as staged
where users.district_id = staged.district_id and users.clever_id = staged.clever_id and staged.username is not null;
-- Users that are not in the last snapshot have the username from Clever, unless it is the Clever id: admins got that, and people who were
-- refused their username.
update app.users as users
set district_username = users.username
where
    users.clever_id is not null
    and users.source = 'clever'
    and users.username_key <> app.normalize_username(users.clever_id)
    and not exists (
        select 1 from staging.users as staged where staged.district_id = users.district_id and staged.clever_id = users.clever_id
    );

-- The rule's name said that the username had to agree.
update reconcile.user_matches set rule = 'two_of_three' where rule = 'username_and_identity';

-- Places: schools, classrooms, the agreement.

-- What Clever calls the classroom. The application may call it something else (R6.1).
alter table app.classrooms add column clever_name text;
alter table app.classrooms add column term_name text;
alter table app.classrooms add column starts_on date;
alter table app.classrooms add column ends_on date;
-- As the next sync of an active classroom would write them, so that it has nothing to write.
update app.classrooms as classrooms
set clever_name = sections.name, term_name = terms.name, starts_on = terms.start_date, ends_on = terms.end_date, updated_at = now()
from staging.sections as sections
left join staging.terms as terms on sections.district_id = terms.district_id and sections.term = terms.clever_id
where
    classrooms.district_id = sections.district_id
    and classrooms.clever_id = sections.clever_id
    and classrooms.deleted_at is null
    and not classrooms.protected;

-- The Clever id before `roster district rekey`, until a sync under the new one has been applied (R6.5).
alter table app.districts add column rekeyed_from text;

-- How domains compare at sign-in (R6.6), also those that were recorded as `@example.org` or `example.org.`.
create function app.domain_key(domain text) returns text language sql immutable strict parallel safe
    return ltrim(rtrim(app.normalize_username(domain), '.'), '@');

-- First syncs and connections.

-- Whether the sync was applied, at least in part. A first sync that is held as a whole has written nothing (R7.6).
alter table ops.syncs add column is_applied boolean not null generated always as (
    status = 'successful'
    or (status = 'held' and not counts @> '{"held": [{"kind": "initial"}]}' and not counts @> '{"writes_nothing": true}')
) stored;
-- The order in which the pulls of a district began (R11.6). It is a number, because a time can be wrong.
alter table ops.syncs add column pull_no bigint;

-- A disconnected district's status before. It has it again when Clever lists it again (R11.7).
alter table ops.connections add column status_before text check (status_before in ('requested', 'active', 'paused'));
-- The application whose districts are listed: the SHA-256 of its client id. Null: no listing has said so yet.
alter table ops.token_listings add column client text;
-- Since when newer listings are not believed, and why: counts and a sentence.
alter table ops.token_listings add column doubted_since timestamptz;
alter table ops.token_listings add column doubt jsonb;
alter table ops.alerts drop constraint alerts_kind_check;
alter table ops.alerts add constraint alerts_kind_check check (kind in (
    'sync_failed', 'hold_opened', 'licenses_crossed', 'data_quality', 'district_silent', 'connected', 'disconnected', 'run_failed',
    'connections_doubtful', 'tokens_unusable', 'district_in_error'
));
-- Since when the district has been active: it was not due at a nightly time before that.
alter table app.districts add column active_since timestamptz;
update app.districts set active_since = least(
    updated_at,
    (select min(syncs.started_at) from ops.syncs where syncs.district_id = districts.district_id and syncs.status <> 'skipped')
) where status = 'active';
create function app.note_activation() returns trigger language plpgsql as $$
begin
    new.active_since = case when new.status = 'active' then coalesce(new.active_since, clock_timestamp()) end;
    return new;
end $$;
create trigger note_activation before insert or update of status on app.districts
    for each row execute function app.note_activation();

-- Requests and the truth about syncs.

-- `kind:name`, as the program or the database found it out itself (R13.1); null in rows of older releases.
alter table ops.syncs add column principal text check (principal ~ '^[a-z]+:.');

-- A row that a role without the privilege to update this table inserts is a request and nothing else, whatever it says of itself (R13.1).
-- It is made on behalf of support if the role is a member of `roster_support`, which the operator creates if it is needed.
create function ops.decide_request() returns trigger language plpgsql set search_path = pg_catalog as $$
begin
    new.principal := coalesce(new.principal, 'app:' || current_user);
    if has_table_privilege(current_user, 'ops.syncs', 'update') then
        return new;
    end if;
    new.principal := 'app:' || current_user;
    new.requested_role := case
        when exists (select from pg_roles where rolname = 'roster_support' and pg_has_role(current_user, oid, 'member')) then 'support'
        else 'account_owner'
    end;
    new.trigger := 'on_demand';
    new.status := 'queued';
    new.requested_at := clock_timestamp();
    new.started_at := null;
    new.finished_at := null;
    new.snapshot_at := null;
    new.pull_no := null;
    new.counts := '{}';
    new.message := null;
    new.dagster_run_id := null;
    return new;
end
$$;
create trigger the_database_decides_the_role before insert on ops.syncs for each row execute function ops.decide_request();

-- When a sensor of the daemon last ran: without it, nothing takes up requests.
create table ops.ticks (
    sensor text primary key,
    ticked_at timestamptz not null
);

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
