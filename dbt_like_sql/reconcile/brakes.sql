-- How many acts fall under each brake, and out of how many people.
-- grain: one row per brake under which at least one act falls
-- rules: R7.3, R7.5
-- decides by: district
-- acts: the number of acts
-- active: n of R7.3, what is active before this sync: people of that role, linked people, classrooms or enrollments; 0 for a collection
with active as (
    select users.user_id, held.role, held.school_id
    from app.users as users
    left join app.user_roles as held
        on users.district_id = held.district_id and users.user_id = held.user_id and held.deleted_at is null
    where users.district_id = :district_id and users.clever_id is not null and users.deleted_at is null
),

counted as (
    select
        kind,
        school_id,
        role,
        collection,
        count(act) as acts,
        -- Acts are sorted, so that the same acts always have the same hash. People who only join the district do not change it.
        encode(sha256(convert_to(coalesce(string_agg(act, chr(10) order by act collate "C"), ''), 'UTF8')), 'hex') as plan_hash
    from reconcile.brake_acts
    group by kind, school_id, role, collection
),

by_role as (
    select role, count(distinct user_id) as people from active group by role
),

by_school as (
    select role, school_id, count(distinct user_id) as people from active where school_id is not null group by role, school_id
)
select
    counted.kind,
    counted.school_id,
    counted.role,
    counted.collection,
    counted.acts,
    -- Every kind has a branch and there is no `else`: a test fails if one is missing.
    case counted.kind
        when 'empty_collection' then 0
        when 'district_role' then coalesce(by_role.people, 0)
        when 'school_role' then coalesce(by_school.people, 0)
        when 'classrooms'
            then (
                select count(*)
                from app.classrooms as classrooms
                where
                    classrooms.district_id = :district_id
                    and classrooms.source = 'clever'
                    and classrooms.deleted_at is null
                    and not coalesce(
                        classrooms.ends_on < cast(cast(:synced_at as timestamptz) at time zone 'America/Los_Angeles' as date), false
                    )
                    and exists (
                        select 1
                        from app.enrollments as enrollments
                        where
                            enrollments.district_id = :district_id
                            and enrollments.classroom_id = classrooms.classroom_id
                            and enrollments.deleted_at is null
                    )
            )
        when 'enrollments'
            then (
                select count(*)
                from app.enrollments as enrollments
                where
                    enrollments.district_id = :district_id
                    and enrollments.role = counted.role
                    and enrollments.source = 'clever'
                    and enrollments.deleted_at is null
            )
        when 'identities' then (select count(distinct user_id) from active)
        when 'relinks' then (select count(distinct user_id) from active)
        when 'new_admins' then coalesce(by_role.people, 0)
        when 'initial' then (select count(*) from app.users where district_id = :district_id and deleted_at is null)
    end as active,
    counted.plan_hash
from counted
left join by_role on counted.role = by_role.role
left join by_school on counted.role = by_school.role and counted.school_id = by_school.school_id
