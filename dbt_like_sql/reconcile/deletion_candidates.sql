-- Active rows that Clever no longer shares, or shares outside the agreement, before brakes are applied.
-- grain: one row per school, classroom or user
-- rules: R4.6, R4.8, R5.8, R6.1, R7.1, R7.2, R8.1
-- decides by: itself
select
    'users' as entity,
    users.user_id as entity_id,
    users.clever_id,
    coalesce(by_clever_id.rule, 'absent') as reason
from app.users as users
left join reconcile.identities as identities
    on users.user_id = identities.user_id and identities.decision <> 'none'
left join reconcile.identities as by_clever_id on users.clever_id = by_clever_id.clever_id
where
    users.district_id = :district_id
    and users.deleted_at is null
    and not users.protected
    and identities.user_id is null
    and not exists (select 1 from reconcile.unshown_users as unshown where unshown.user_id = users.user_id)
union all
select
    'schools' as entity,
    schools.school_id as entity_id,
    schools.clever_id,
    coalesce(desired.status, 'absent') as reason
from app.schools as schools
left join reconcile.schools as desired on schools.school_id = desired.school_id
where
    schools.district_id = :district_id
    and schools.deleted_at is null
    and not schools.protected
    and coalesce(desired.status, 'outside') = 'outside'
union all
select
    'classrooms' as entity,
    classrooms.classroom_id as entity_id,
    classrooms.clever_id,
    coalesce(desired.status, 'absent') as reason
from app.classrooms as classrooms
left join reconcile.classrooms as desired on classrooms.classroom_id = desired.classroom_id
where
    classrooms.district_id = :district_id
    and classrooms.deleted_at is null
    and not classrooms.protected
    and coalesce(desired.status, 'outside') in ('outside', 'unknown_school')
