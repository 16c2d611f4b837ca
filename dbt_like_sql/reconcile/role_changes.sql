-- The difference between the present roles and the desired ones, without lost roles that a window keeps.
-- grain: one row per row of app.user_roles to write
-- rules: R5.8, R7.2
-- decides by: itself
with listed as (
    select user_id, role, school_id from reconcile.roles where is_listed
)
select
    'role_gain' as action,
    listed.user_id,
    listed.role,
    listed.school_id,
    'clever' as source,
    cast(null as timestamptz) as deleted_at,
    held.user_id is null as is_new,
    case when held.user_id is not null then jsonb_build_object('source', held.source, 'deleted_at', held.deleted_at) end as before,
    case when held.user_id is null then '{"source": "clever"}' else cast('{"source": "clever", "deleted_at": null}' as jsonb) end as after
from listed
left join app.user_roles as held
    on
        held.district_id = :district_id
        and listed.user_id = held.user_id
        and listed.role = held.role
        and listed.school_id is not distinct from held.school_id
where held.user_id is null or held.deleted_at is not null
union all
select
    'role_loss' as action,
    user_id,
    role,
    school_id,
    'clever' as source,
    cast(:synced_at as timestamptz) as deleted_at,
    false as is_new,
    jsonb_build_object('deleted_at', null) as before,
    jsonb_build_object('deleted_at', cast(:synced_at as timestamptz)) as after
from reconcile.lost_roles
where held_by is null
