-- The end of a contract, and of a person's data (R18.1, R18.2).

-- Every act that removes personal data permanently has one row: `roster purge`, `roster erase`, `roster district offboard --erase`. It can
-- be shown to the district, so it has counts and no personal data.
alter table ops.purges alter column deleted_before drop not null;
alter table ops.purges add column kind text not null default 'users' check (kind in ('users', 'person', 'district'));
-- `kind:name`, as the program found it out itself (R13.1); null in rows of older releases.
alter table ops.purges add column principal text check (principal ~ '^[a-z]+:.');
alter table ops.purges add column reason text;
-- Number of rows by table and by what was done with them: removed, blanked, emptied.
alter table ops.purges add column counts jsonb not null default '{}';

-- Tombstones: people who were erased, and no sync may bring them back (R18.2). The Clever id itself is not stored.
create table ops.erased (
    erased_id bigint generated always as identity primary key,
    district_id bigint not null references app.districts,
    salt uuid not null, -- random, the same for all tombstones of a district
    clever_id_hash bytea not null, -- `ops.hash_clever_id` of the salt and the Clever id
    purge_id bigint not null references ops.purges,
    erased_at timestamptz not null,
    unique (district_id, clever_id_hash)
);

create function ops.hash_clever_id(salt uuid, clever_id text) returns bytea language sql immutable strict parallel safe
    return sha256(uuid_send(salt) || convert_to(clever_id, 'UTF8'));
