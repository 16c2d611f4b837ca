-- Records that broke a mandatory rule. They count as present (R4.6): the rows of `app` behind them are left unchanged. So do active rows of
-- `app` that the pull does not show, if an element of their collection cannot be read: it can be any of them (R4.8).
-- grain: one row per resource and Clever id whose newest record was rejected, or can be an element that cannot be read
-- key: district_id, resource, clever_id
-- is_shown: the pull has a record with this id
-- rules: R4.2, R4.6, R4.7, R4.8
with landed as (
    select 'schools' as resource, clever_id, last_modified, position, rejected from clever.schools
    union all
    -- Clever gives terms no last_modified.
    select 'terms' as resource, clever_id, cast(null as timestamptz) as last_modified, position, rejected from clever.terms
    union all
    select 'sections' as resource, clever_id, last_modified, position, rejected from clever.sections
    union all
    select 'users' as resource, clever_id, last_modified, position, rejected from clever.users
),

newest_first as (
    select
        *,
        row_number() over (
            partition by resource, clever_id
            order by rejected and last_modified is null desc, last_modified desc nulls last, position desc
        ) as rank
    from landed
    where clever_id <> ''
),

-- Active rows of `app`, each with its collection.
ours as (
    select 'schools' as resource, clever_id, 'schools' as collection
    from app.schools
    where district_id = :district_id and deleted_at is null
    union all
    select 'sections' as resource, clever_id, 'sections' as collection
    from app.classrooms
    where district_id = :district_id and deleted_at is null
    union all
    select 'users' as resource, users.clever_id, collections.collection
    from app.users as users
    inner join app.user_roles as held on users.district_id = held.district_id and users.user_id = held.user_id
    inner join (
        values ('student', 'students'), ('teacher', 'teachers'), ('school_admin', 'staff'), ('district_admin', 'district_admins')
    ) as collections (role, collection) on held.role = collections.role
    where users.district_id = :district_id and users.deleted_at is null and held.deleted_at is null
)
select
    cast(:district_id as bigint) as district_id,
    resource,
    clever_id,
    true as is_shown
from newest_first
where rank = 1 and rejected
union
select
    cast(:district_id as bigint) as district_id,
    ours.resource,
    ours.clever_id,
    false as is_shown
from ours
inner join staging.unreadable as unreadable on ours.collection = unreadable.collection
where
    ours.clever_id is not null
    and not exists (select 1 from landed where landed.resource = ours.resource and landed.clever_id = ours.clever_id)
