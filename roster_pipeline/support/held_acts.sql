-- What a hold holds, one row for each act: what it is about, with names for the person who decides.
-- grain: one row per act of the hold
-- rules: R13.5
with acts as (
    select
        held.act,
        holds.district_id,
        holds.role,
        holds.school_id,
        -- The last word of an act is the Clever id, or the application's number of a row without one.
        regexp_replace(held.act, '^.* ', '') as subject,
        case
            when held.act like '% classrooms %' then 'classrooms'
            when held.act like '% schools %' then 'schools'
            when held.act = 'rekey district' then 'districts'
            else 'users'
        end as entity,
        -- The classroom of an enrollment.
        substring(held.act from '^end enrollment ([^ ]+) ') as classroom
    from ops.held_acts as held
    inner join ops.holds as holds on held.hold_id = holds.hold_id
    where held.hold_id = :hold_id
)
select
    acts.act,
    acts.entity,
    users.user_id,
    coalesce(users.clever_id, staged.clever_id, classrooms.clever_id, schools.clever_id) as clever_id,
    coalesce(users.username, staged.username, classrooms.name, schools.name) as username,
    coalesce(acts.role, held_roles.roles) as role,
    coalesce(held_schools.name, own_school.name, classroom_schools.name) as school,
    coalesce(acts.school_id, users.school_id, classrooms.school_id, schools.school_id, held_roles.school_id) as school_id
from acts
left join app.users as users
    on
        acts.entity = 'users'
        and acts.district_id = users.district_id
        and (acts.subject = users.clever_id or (users.clever_id is null and acts.subject = cast(users.user_id as text)))
left join staging.users as staged
    on acts.entity = 'users' and acts.district_id = staged.district_id and acts.subject = staged.clever_id
left join app.classrooms as classrooms
    on
        acts.district_id = classrooms.district_id
        and coalesce(acts.classroom, case when acts.entity = 'classrooms' then acts.subject end)
        in (classrooms.clever_id, cast(classrooms.classroom_id as text))
left join app.schools as schools
    on
        acts.entity = 'schools'
        and acts.district_id = schools.district_id
        and acts.subject in (schools.clever_id, cast(schools.school_id as text))
left join lateral (
    select
        string_agg(distinct held.role, ', ') as roles,
        case when count(distinct held.school_id) = 1 then min(held.school_id) end as school_id
    from app.user_roles as held
    where held.district_id = users.district_id and held.user_id = users.user_id and held.deleted_at is null
) as held_roles on true
left join app.schools as held_schools on acts.district_id = held_schools.district_id and acts.school_id = held_schools.school_id
left join app.schools as own_school
    on
        acts.district_id = own_school.district_id
        and coalesce(users.school_id, held_roles.school_id) = own_school.school_id
left join app.schools as classroom_schools
    on acts.district_id = classroom_schools.district_id and classrooms.school_id = classroom_schools.school_id
order by acts.act
