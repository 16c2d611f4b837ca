-- The part of reconcile.readiness about existing data of the application, and what would happen to it.
-- grain: one row per topic and item, also at zero
-- rules: R5.2, R7.6
-- decides by: district
with existing_users as (
    select
        count(*) filter (where deleted_at is null) as active,
        count(*) filter (where deleted_at is not null) as deleted,
        count(*) filter (where deleted_at is null and source = 'clever') as clever,
        count(*) filter (where deleted_at is null and source = 'csv') as csv,
        count(*) filter (where deleted_at is null and source = 'app') as app,
        count(*) filter (where deleted_at is null and protected) as protected,
        count(*) filter (where deleted_at is null and not protected and clever_id is null) as unlinked
    from app.users
    where district_id = :district_id
),

removed as (
    select
        count(*) filter (where removals.entity = 'users') as users,
        count(*) filter (where removals.entity = 'schools') as schools,
        string_agg(schools.name, ', ' order by schools.name collate "C", removals.entity_id) as school_names,
        count(*) filter (where removals.entity = 'classrooms') as classrooms
    from reconcile.deletion_candidates as removals
    left join app.schools as schools
        on removals.entity = 'schools' and schools.district_id = :district_id and removals.entity_id = schools.school_id
),

-- Enrollments that this sync ends, and those that it would end if no brake held the soft delete of the person or the classroom.
ended_enrollments as (
    select count(*) as enrollments
    from (
        select classroom_id, user_id, role
        from reconcile.enrollment_changes
        where action = 'soft_delete'
        union
        select enrollments.classroom_id, enrollments.user_id, enrollments.role
        from (
            select ended.classroom_id, ended.user_id, ended.role
            from reconcile.deletion_candidates as removals
            inner join app.enrollments as ended on removals.entity_id = ended.user_id
            where removals.entity = 'users' and ended.deleted_at is null
            union
            select ended.classroom_id, ended.user_id, ended.role
            from reconcile.deletion_candidates as removals
            inner join app.enrollments as ended on removals.entity_id = ended.classroom_id
            where removals.entity = 'classrooms' and ended.deleted_at is null
        ) as enrollments
        inner join app.classrooms as classrooms
            on classrooms.district_id = :district_id and enrollments.classroom_id = classrooms.classroom_id
        left join reconcile.classrooms as decided on classrooms.classroom_id = decided.classroom_id
        left join reconcile.decisions as decisions on enrollments.user_id = decisions.user_id
        where
            not classrooms.protected
            and coalesce(decided.status, 'outside') <> 'frozen'
            and coalesce(decisions.decision, 'none') not in ('frozen', 'held')
    ) as ended
),

recognised as (
    select
        count(*) filter (where identities.decision = 'adopt') as adopted,
        count(*) filter (where users.deleted_at is not null) as restored
    from reconcile.identities as identities
    left join app.users as users on users.district_id = :district_id and identities.user_id = users.user_id
    where identities.decision in ('link', 'adopt', 'relink', 'create')
)
select
    'existing_users' as topic,
    item.name as item,
    item.count,
    null as detail
from existing_users
cross join lateral (
    values
    ('active', existing_users.active),
    ('deleted', existing_users.deleted),
    ('clever', existing_users.clever),
    ('csv', existing_users.csv),
    ('app', existing_users.app),
    ('protected', existing_users.protected),
    ('unlinked', existing_users.unlinked)
) as item (name, count)
union all
select
    'existing_data' as topic,
    item.name as item,
    item.count,
    item.detail
from removed
cross join ended_enrollments
cross join recognised
cross join lateral (
    values
    ('users_soft_deleted', removed.users, null),
    ('schools_soft_deleted', removed.schools, removed.school_names),
    ('classrooms_soft_deleted', removed.classrooms, null),
    ('enrollments_soft_deleted', ended_enrollments.enrollments, null),
    ('users_adopted', recognised.adopted, null),
    ('users_restored', recognised.restored, null)
) as item (name, count, detail)
