-- Rostered people, schools and classrooms whose Clever id is also active in another district. Clever gives each record to one district, so
-- one of the two districts has what belongs to the other.
-- grain: one row per offending record
-- rules: R3.6
-- decides by: itself
-- severity: error
with ours as (
    select 'users' as resource, clever_id
    from reconcile.users
    union all
    select 'schools' as resource, clever_id
    from reconcile.schools
    where status = 'rostered'
    union all
    select 'sections' as resource, clever_id
    from reconcile.classrooms
    where status = 'rostered'
),

found as (
    select ours.resource, ours.clever_id, others.district_id
    from ours
    inner join app.users as others on ours.clever_id = others.clever_id
    where ours.resource = 'users' and others.district_id <> :district_id and others.deleted_at is null
    union all
    select ours.resource, ours.clever_id, others.district_id
    from ours
    inner join app.schools as others on ours.clever_id = others.clever_id
    where ours.resource = 'schools' and others.district_id <> :district_id and others.deleted_at is null
    union all
    select ours.resource, ours.clever_id, others.district_id
    from ours
    inner join app.classrooms as others on ours.clever_id = others.clever_id
    where ours.resource = 'sections' and others.district_id <> :district_id and others.deleted_at is null
)
select distinct
    found.resource,
    found.clever_id
from found
inner join app.districts as districts on found.district_id = districts.district_id
where districts.status in ('active', 'paused')
