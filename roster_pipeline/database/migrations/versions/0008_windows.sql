-- Windows: spans of nights that are agreed in advance (R14.1).

-- A range of texts, so that one constraint can compare whose window it is and which nights it has, without an extension.
create type ops.text_range as range (subtype = text, collation = "C");

create table ops.windows (
    window_id bigint generated always as identity primary key,
    district_id bigint references app.districts,
    profile text,
    kind text not null check (kind in ('freeze', 'additions_only', 'rollover')),
    -- Both nights are in the window. A night lasts from noon of its day to noon of the next, in Los Angeles.
    first_night date not null,
    last_night date not null,
    -- Limits of brakes, by name, as in the settings of a district. What is not named has the default of a rollover.
    limits jsonb not null default '{}',
    created_by text not null check (btrim(created_by) <> '' and length(created_by) <= 200),
    reason text not null check (btrim(reason) <> '' and length(reason) <= 2000),
    created_at timestamptz not null default clock_timestamp(),
    -- `kind:name`, as the program found it out itself (R13.1).
    principal text check (principal ~ '^[a-z]+:.'),
    cancelled_by text check (btrim(cancelled_by) <> '' and length(cancelled_by) <= 200),
    cancelled_at timestamptz,
    constraint windows_of_a_district_or_a_profile check (num_nonnulls(district_id, profile) = 1),
    constraint windows_end_after_they_begin check (first_night <= last_night),
    constraint windows_have_an_end check (last_night - first_night < case kind when 'rollover' then 31 else 92 end),
    constraint windows_with_limits check (jsonb_typeof(limits) = 'object' and (kind = 'rollover' or limits = '{}')),
    constraint windows_are_cancelled_by_somebody check ((cancelled_by is null) = (cancelled_at is null)),
    -- A district's window and one of its profile may overlap.
    constraint windows_one_at_a_time exclude using gist (
        ops.text_range(
            coalesce('district ' || cast(district_id as text), 'profile ' || profile),
            coalesce('district ' || cast(district_id as text), 'profile ' || profile),
            '[]'
        ) with &&,
        daterange(first_night, last_night, '[]') with &&
    ) where (cancelled_at is null)
);

create function ops.refuse_window_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' then
        if
            old.cancelled_at is null
            and to_jsonb(new) - array['cancelled_by', 'cancelled_at'] = to_jsonb(old) - array['cancelled_by', 'cancelled_at']
        then
            return new;
        end if;
    end if;
    raise exception 'a window is never changed or removed, only cancelled once' using errcode = 'insufficient_privilege';
end
$$;
create trigger windows_never_change before update or delete on ops.windows for each row execute function ops.refuse_window_change();
create trigger windows_are_never_emptied before truncate on ops.windows for each statement execute function ops.refuse_window_change();

-- The night to which a moment belongs: from noon to noon, so 00:00 belongs to the same night as the 21:00 before it.
create function ops.night_of(at timestamptz) returns date language sql immutable strict parallel safe
    return cast(at at time zone 'America/Los_Angeles' - interval '12 hours' as date);

-- The window of a district that is on at a moment; its own goes before its profile's. A cancelled one was on until then.
create function ops.window_at(of_district bigint, at timestamptz) returns setof ops.windows language sql stable set search_path = pg_catalog
as $$
    select windows.*
    from ops.windows as windows
    inner join app.districts as districts on windows.district_id = districts.district_id or windows.profile = districts.profile
    where
        districts.district_id = of_district
        and ops.night_of(at) between windows.first_night and windows.last_night
        and (windows.cancelled_at is null or windows.cancelled_at > at)
    order by windows.district_id nulls last, windows.window_id
    limit 1
$$;

alter table ops.alerts drop constraint alerts_kind_check;
alter table ops.alerts add constraint alerts_kind_check check (kind in (
    'sync_failed', 'hold_opened', 'licenses_crossed', 'data_quality', 'district_silent', 'connected', 'disconnected', 'run_failed',
    'connections_doubtful', 'tokens_unusable', 'district_in_error', 'window'
));
