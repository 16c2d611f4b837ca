-- The difference between the present enrollments and the desired ones, and the holds that keep some of it from being written.
-- grain: one row per enrollment that is not as desired
-- rules: R4.6, R4.7, R4.8, R5.10, R6.2, R6.3, R7.1, R7.2, R7.3, R7.4, R8.1, R14.3
-- decides by: itself
-- is_loss: it would end though person and classroom stay: what the brake `enrollments` counts
-- held_by: the kind of brake that keeps it as it is, or `additions_only` if a window does; null if this sync writes it
with desired as (
    -- A section can list both records of one person (R5.10).
    select classroom_id, user_id, role, bool_or(is_primary) as is_primary
    from reconcile.memberships
    where status = 'enrolled'
    group by classroom_id, user_id, role
),

-- Users that this sync leaves unchanged. They are one set, so that the many enrollments are joined only once.
unchanged as (
    select user_id from reconcile.decisions where decision in ('frozen', 'held')
    union all
    select user_id from reconcile.held_users where not is_rostered and held_by <> 'additions_only'
    union all
    select user_id from reconcile.unshown_users
),

-- Teachers who stay because Clever did not send those of the section: users who have the role of a teacher after this sync (R4.7).
staying as (
    select
        enrollments.classroom_id,
        enrollments.user_id
    from staging.sections as sections
    inner join app.classrooms as classrooms on classrooms.district_id = :district_id and sections.clever_id = classrooms.clever_id
    inner join app.enrollments as enrollments
        on
            enrollments.district_id = :district_id
            and classrooms.classroom_id = enrollments.classroom_id
            and enrollments.role = 'teacher'
            and enrollments.deleted_at is null
    inner join app.users as users on users.district_id = :district_id and enrollments.user_id = users.user_id
    where
        sections.district_id = :district_id
        and sections.teachers is null
        and (
            exists (select 1 from reconcile.roles as roles where roles.user_id = enrollments.user_id and roles.role = 'teacher')
            -- A role of another source, or of a protected user, does not end.
            or exists (
                select 1
                from app.user_roles as held
                where
                    held.district_id = :district_id
                    and held.user_id = users.user_id
                    and held.role = 'teacher'
                    and held.deleted_at is null
                    and (users.protected or held.source <> 'clever')
                    and users.deleted_at is null
            )
        )
        and not exists (
            select 1
            from reconcile.soft_deletes as removals
            where removals.entity = 'users' and removals.entity_id = users.user_id and removals.held_by is null
        )
),

-- Enrollments that this sync may change. A protected classroom keeps its own (R8.1); so do classrooms and people that are left unchanged.
existing as (
    select
        enrollments.classroom_id,
        enrollments.user_id,
        enrollments.role,
        enrollments.is_primary,
        enrollments.source,
        enrollments.deleted_at,
        classrooms.school_id
    from app.enrollments as enrollments
    inner join app.classrooms as classrooms
        on enrollments.district_id = classrooms.district_id and enrollments.classroom_id = classrooms.classroom_id
    where
        classrooms.district_id = :district_id
        and not classrooms.protected
        -- Both of these sets are small, so the many enrollments are joined with few rows.
        and not exists (
            select 1
            from reconcile.classroom_status as decided
            where decided.status = 'frozen' and decided.classroom_id = classrooms.classroom_id
        )
        and not exists (select 1 from unchanged where unchanged.user_id = enrollments.user_id)
        and not exists (
            select 1
            from staying
            where
                staying.classroom_id = enrollments.classroom_id
                and staying.user_id = enrollments.user_id
                and enrollments.role = 'teacher'
        )
),

compared as (
    select
        classroom_id,
        user_id,
        role,
        desired.is_primary,
        existing.is_primary as old_is_primary,
        existing.source as old_source,
        existing.deleted_at as old_deleted_at,
        existing.school_id as old_school_id,
        case
            when desired.is_primary is null then 'soft_delete'
            when existing.is_primary is null then 'create'
            when existing.deleted_at is not null then 'restore'
            else 'update'
        end as action
    from desired
    full join existing using (classroom_id, user_id, role)
    where
        case
            when desired.is_primary is null then existing.deleted_at is null
            else
                existing.is_primary is null
                or existing.deleted_at is not null
                or desired.is_primary <> existing.is_primary
                or existing.source <> 'clever'
        end
),

losses as (
    select
        compared.*,
        compared.action = 'soft_delete'
        and exists (
            select 1
            from app.users as users
            where users.district_id = :district_id and users.user_id = compared.user_id and users.deleted_at is null
        )
        and exists (
            select 1
            from app.classrooms as classrooms
            where
                classrooms.district_id = :district_id
                and classrooms.classroom_id = compared.classroom_id
                and classrooms.deleted_at is null
        )
        -- Both stay in the plan without holds too.
        and not exists (
            select 1
            from reconcile.deletion_candidates as candidates
            where candidates.entity = 'users' and candidates.entity_id = compared.user_id
        )
        and not exists (
            select 1
            from reconcile.deletion_candidates as candidates
            where candidates.entity = 'classrooms' and candidates.entity_id = compared.classroom_id
        ) as is_loss
    from compared
)
select
    losses.classroom_id,
    losses.user_id,
    losses.role,
    losses.is_primary,
    losses.old_is_primary,
    losses.old_source,
    losses.old_deleted_at,
    losses.action,
    losses.is_loss,
    case
        when losses.action <> 'soft_delete' then null
        when
            :is_additions_only
            -- A person who moves to another school leaves the classes at the old one.
            and not exists (
                select 1
                from reconcile.lost_roles as lost
                where
                    lost.held_by is null
                    and lost.user_id = losses.user_id
                    and lost.role = losses.role
                    and lost.school_id = losses.old_school_id
            )
            then 'additions_only'
        -- A hold of kind `empty_collection` holds every soft delete in the district (R7.4).
        when exists (select 1 from reconcile.holds as holds where holds.kind = 'empty_collection') then 'empty_collection'
        when
            exists (
                select 1
                from reconcile.unchanged_classrooms as unchanged
                where unchanged.classroom_id = losses.classroom_id and unchanged.keeps_members
            )
            then 'classrooms'
        when
            losses.is_loss
            and exists (select 1 from reconcile.holds as holds where holds.kind = 'enrollments' and holds.role = losses.role)
            then 'enrollments'
        -- A person whose only schools are held keeps the classes.
        when
            exists (select 1 from reconcile.held_users as held_users where held_users.user_id = losses.user_id and held_users.is_rostered)
            then 'school_role'
    end as held_by
from losses
