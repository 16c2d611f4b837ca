-- What a rollover would do to students, from the temporary tables of a plan without holds: how many of each school and grade stay, are
-- promoted, move, graduate, are lost, return or are new. School and grade are those of today; of people who return or are new, their
-- future ones.
-- rules: R14.5
with grades as (
    select listed.grade, listed.place
    from unnest(cast(:grades as text[])) with ordinality as listed (grade, place)
),

present as (
    select users.user_id, users.school_id, users.grade
    from app.users as users
    where
        users.district_id = :district_id
        and users.deleted_at is null
        and exists (
            select 1
            from app.user_roles as held
            where
                held.district_id = :district_id
                and held.user_id = users.user_id
                and held.role = 'student'
                and held.deleted_at is null
        )
),

-- Only students have a seat, or wait for one.
future as (
    select user_id, school_id, grade, decision
    from reconcile.users
    where license_status is not null
),

moved as (
    select
        case when present.user_id is not null then present.school_id else future.school_id end as school_id,
        case when present.user_id is not null then present.grade else future.grade end as grade,
        case
            when present.user_id is null and future.decision = 'create' then 'new'
            when present.user_id is null then 'return'
            when graduates.user_id is not null then 'graduate'
            when removed.entity_id is not null or (future.user_id is null and others.user_id is not null) then 'lost'
            when future.user_id is null then 'stay'
            when coalesce(future.school_id, 0) <> coalesce(present.school_id, 0) then 'move'
            when new_grades.place > old_grades.place then 'promoted'
            else 'stay'
        end as what
    from present
    full join future on present.user_id = future.user_id
    left join reconcile.graduates as graduates on present.user_id = graduates.user_id
    left join reconcile.soft_deletes as removed on removed.entity = 'users' and present.user_id = removed.entity_id
    -- Students who become staff.
    left join reconcile.users as others on others.license_status is null and present.user_id = others.user_id
    left join grades as old_grades on present.grade = old_grades.grade
    left join grades as new_grades on future.grade = new_grades.grade
)
select
    moved.school_id,
    moved.grade,
    count(*) filter (where moved.what = 'stay') as stay,
    count(*) filter (where moved.what = 'promoted') as promoted,
    count(*) filter (where moved.what = 'move') as move,
    count(*) filter (where moved.what = 'graduate') as graduate,
    count(*) filter (where moved.what = 'lost') as lost,
    count(*) filter (where moved.what = 'return') as return,
    count(*) filter (where moved.what = 'new') as new
from moved
left join grades on moved.grade = grades.grade
group by moved.school_id, moved.grade, grades.place
order by moved.school_id nulls last, grades.place nulls last, moved.grade collate "C"
