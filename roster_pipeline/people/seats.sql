-- Which students of the file have a seat after the import. As in a sync, nobody loses one; those that are free are given in the order of
-- created_at, then of the file.
-- grain: one row per student of the file
-- rules: R8.2, R9.1, R9.2
-- is_refused: under the policy `hold`, a new student without a seat is not imported
with caps as (
    select
        over_license_policy,
        licenses
    from app.districts
    where district_id = :district_id
),

-- As reconcile/schools.sql finds them: by Clever id, else by name. The smaller number counts.
school_caps as (
    select
        schools.school_id,
        min(agreed.licenses) as licenses
    from app.schools as schools
    inner join app.agreed_schools as agreed
        on
            schools.district_id = agreed.district_id
            and (
                schools.clever_id = agreed.clever_id
                or (
                    app.normalize_username(schools.name) = app.normalize_username(agreed.name)
                    and not exists (
                        select 1
                        from app.schools as by_id
                        where by_id.district_id = :district_id and by_id.clever_id = agreed.clever_id and by_id.deleted_at is null
                    )
                )
            )
    where schools.district_id = :district_id and schools.deleted_at is null and agreed.licenses is not null
    group by schools.school_id
),

-- The first student row of each person: its school is the primary one.
listed as (
    select distinct on (people.username_key)
        people.username_key,
        people.user_id,
        people.line,
        people.school_id
    from pg_temp.import_rows as people
    where
        people.role = 'student'
        and people.line not in (select faults.line from pg_temp.import_faults as faults)
        and people.line not in (select conflicts.line from pg_temp.import_conflicts as conflicts)
        and people.line not in (select blocked.line from pg_temp.import_blocked as blocked)
    order by people.username_key asc, people.line asc
),

-- Active students, without those who are no longer students in the file.
students as (
    select
        users.user_id,
        coalesce(listed.school_id, users.school_id) as school_id,
        coalesce(users.license_status, 'licensed') = 'licensed' as has_seat
    from app.users as users
    left join listed on users.user_id = listed.user_id
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
                and (
                    listed.user_id is not null
                    or held.source <> 'csv'
                    or 'student' <> all(cast(:roles as text[]))
                    or users.user_id not in (select decided.user_id from pg_temp.import_decided as decided)
                )
        )
),

waiting as (
    select
        listed.username_key,
        school_caps.licenses is null
        or row_number() over (partition by listed.school_id order by coalesce(users.created_at, now()), listed.line)
        <= school_caps.licenses - (select count(*) from students where students.has_seat and students.school_id = school_caps.school_id)
            as fits_school,
        coalesce(users.created_at, now()) as created_at,
        listed.line
    from listed
    left join school_caps on listed.school_id = school_caps.school_id
    left join app.users as users on users.district_id = :district_id and listed.user_id = users.user_id
    where not exists (select 1 from students where students.user_id = listed.user_id and students.has_seat)
),

ranked as (
    select
        username_key,
        fits_school,
        row_number() over (partition by fits_school order by created_at, line) as position
    from waiting
),

used as (
    select count(*) as seats from students where has_seat
),

fitting as (
    select
        listed.username_key,
        students.user_id is not null as is_student,
        ranked.username_key is null
        or (
            ranked.fits_school
            and (
                caps.licenses is null
                or ranked.position <= caps.licenses - used.seats
            )
        ) as fits,
        caps.over_license_policy
    from listed
    cross join caps
    cross join used
    left join students on listed.user_id = students.user_id
    left join ranked on listed.username_key = ranked.username_key
)
select
    username_key,
    fits or over_license_policy = 'warn' as has_seat,
    not fits as is_beyond,
    not fits and over_license_policy = 'hold' and not is_student as is_refused
from fitting
