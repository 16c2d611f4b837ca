-- The difference between the present roles and the desired ones.
-- grain: one row per row of app.user_roles to write
-- rules: R4.6, R4.8, R5.8, R7.2, R7.4, R8.1
-- decides by: itself
with listed as (
    select user_id, role, school_id from reconcile.roles where is_listed
),

-- Rostered roles that this sync may end: it may change both the user and the school. A role of another source never ends here (R5.8).
endable as (
    select held.user_id, held.role, held.school_id
    from app.user_roles as held
    inner join app.users as users on held.district_id = users.district_id and held.user_id = users.user_id
    left join reconcile.decisions as decisions on users.user_id = decisions.user_id
    left join reconcile.held_users as held_users on users.user_id = held_users.user_id and not held_users.is_rostered
    left join reconcile.unshown_users as unshown on users.user_id = unshown.user_id
    left join reconcile.school_status as schools on held.school_id = schools.school_id
    where
        held.district_id = :district_id
        and held.source = 'clever'
        and held.deleted_at is null
        and not users.protected
        and coalesce(decisions.decision, 'none') not in ('frozen', 'held')
        and held_users.user_id is null
        and unshown.user_id is null
        and coalesce(schools.status, 'outside') <> 'frozen'
        -- A hold of kind `empty_collection` holds every soft delete in the district (R7.4).
        and not exists (select 1 from reconcile.holds as holds where holds.kind = 'empty_collection')
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
    endable.user_id,
    endable.role,
    endable.school_id,
    'clever' as source,
    cast(:synced_at as timestamptz) as deleted_at,
    false as is_new,
    jsonb_build_object('deleted_at', null) as before,
    jsonb_build_object('deleted_at', cast(:synced_at as timestamptz)) as after
from endable
where
    not exists (
        select 1
        from reconcile.roles as roles
        where
            roles.user_id = endable.user_id
            and roles.role = endable.role
            and roles.school_id is not distinct from endable.school_id
    )
