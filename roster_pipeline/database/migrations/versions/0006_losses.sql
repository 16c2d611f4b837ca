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
