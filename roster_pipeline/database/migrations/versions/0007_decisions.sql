-- Who decided about a hold, as the program found it out itself (R13.1); null while nobody has decided, and in rows of older releases.
alter table ops.holds add column decided_principal text check (decided_principal ~ '^[a-z]+:.');
-- The sync that carried out what was approved (R13.4).
alter table ops.holds add column used_by bigint;

-- What a hold holds: the acts that its plan_hash is made of, with Clever ids and numbers (R13.5). They are written when the hold is opened.
create table ops.held_acts (
    hold_id bigint not null references ops.holds on delete cascade,
    act text not null,
    primary key (hold_id, act)
);
