-- The feed (R17.3): every sync that wrote, in the order in which it became visible.

-- The place of the sync in the feed; null for a sync that wrote nothing.
alter table ops.syncs add column applied_no bigint;
create sequence ops.applied_numbers;

-- Up to which number syncs are not in the feed any more. One row.
create table ops.feed_floor (
    is_only boolean primary key default true check (is_only),
    removed_up_to bigint not null
);
-- Syncs of older releases have no number, so nobody can follow the feed from before the first numbered one.
insert into ops.feed_floor (removed_up_to)
select case when exists (select from ops.syncs where is_applied) then nextval('ops.applied_numbers') else 0 end;

-- Gives a sync its number. The lock is held until the transaction has ended, so the next number is given when this one can be seen.
-- A sync does nothing else between this and its commit.
create function ops.number_applied(sync bigint, lock bigint) returns bigint
language plpgsql set search_path = pg_catalog as $$
declare
    number bigint;
begin
    perform pg_advisory_xact_lock(lock);
    number := nextval('ops.applied_numbers');
    update ops.syncs set applied_no = number where sync_id = sync;
    perform pg_notify('roster_sync', number::text);
    return number;
end
$$;
revoke execute on function ops.number_applied(bigint, bigint) from public;

create view ops.feed as
select applied_no, sync_id, district_id, trigger, finished_at, counts
from ops.syncs
where applied_no is not null;

-- The syncs after a number. A stable function reads one state, so nothing can be removed between its two queries.
create function ops.feed_since(n bigint) returns setof ops.feed
language plpgsql stable security definer set search_path = pg_catalog as $$
begin
    if n is null or n < (select removed_up_to from ops.feed_floor) then
        raise exception 'feed_gap: syncs after number % are not kept any more', coalesce(n::text, 'null')
            using errcode = 'no_data_found', hint = 'Read the tables of app again, and go on from ops.feed_position().';
    end if;
    return query select * from ops.feed where applied_no > n order by applied_no;
end
$$;

-- The newest number. A reader that begins asks for it in the same transaction (REPEATABLE READ) in which it reads the tables of app.
create function ops.feed_position() returns bigint
language sql stable security definer set search_path = pg_catalog as $$
    select greatest((select max(applied_no) from ops.syncs), (select removed_up_to from ops.feed_floor));
$$;

create function ops.raise_feed_floor() returns trigger language plpgsql set search_path = pg_catalog as $$
begin
    update ops.feed_floor
    set removed_up_to = greatest(removed_up_to, (select max(applied_no) from removed))
    where (select max(applied_no) from removed) > removed_up_to;
    return null;
end
$$;
create trigger raise_feed_floor after delete on ops.syncs
    referencing old table as removed for each statement execute function ops.raise_feed_floor();
