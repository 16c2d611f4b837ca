-- Students who are, or could be, active after this sync, with the columns that decide about their seats.
-- grain: one row per student
-- rules: R4.8, R6.3, R9.1, R9.2
-- decides by: itself
-- has_seat: has a seat and keeps it
-- is_arriving: would be created or restored
-- is_unchanged: this sync leaves the user unchanged
with rostered as (
    select
        after_brakes.clever_id,
        after_brakes.user_id,
        after_brakes.decision,
        users.deleted_at is null and users.user_id is not null as is_active,
        users.license_status,
        coalesce(users.created_at, cast(:synced_at as timestamptz)) as created_at,
        primary_schools.school_id
    from reconcile.identities_after_brakes as after_brakes
    left join app.users as users on users.district_id = :district_id and after_brakes.user_id = users.user_id
    left join reconcile.primary_schools as primary_schools on after_brakes.clever_id = primary_schools.clever_id
    where
        after_brakes.decision in ('link', 'adopt', 'relink', 'create')
        and after_brakes.is_student
),

-- Active students that this sync leaves unchanged: held, quarantined and protected ones. They count unless all their schools are outside.
unchanged as (
    select
        users.clever_id,
        users.user_id,
        users.license_status,
        users.created_at,
        users.school_id
    from app.users as users
    left join reconcile.identities_after_brakes as after_brakes on users.user_id = after_brakes.user_id and after_brakes.decision <> 'none'
    left join reconcile.held_users as held_users on users.user_id = held_users.user_id
    left join reconcile.unshown_users as unshown on users.user_id = unshown.user_id
    where
        users.district_id = :district_id
        and users.deleted_at is null
        and (
            users.protected
            or after_brakes.decision in ('frozen', 'held')
            or not held_users.is_rostered
            or unshown.user_id is not null
        )
        and exists (
            select 1
            from app.user_roles as held
            left join reconcile.schools as schools on held.school_id = schools.school_id
            where
                held.district_id = users.district_id
                and held.user_id = users.user_id
                and held.role = 'student'
                and held.deleted_at is null
                and coalesce(schools.status, 'rostered') <> 'outside'
        )
)
select
    clever_id,
    user_id,
    school_id,
    created_at,
    -- An account from before Clever, or of a teacher who becomes a student, has no seat yet.
    is_active and coalesce(license_status, 'waiting') = 'licensed' as has_seat,
    not is_active as is_arriving,
    false as is_unchanged
from rostered
union all
select
    clever_id,
    user_id,
    school_id,
    created_at,
    -- An imported student has a seat unless the account says `waiting`.
    coalesce(license_status, 'licensed') = 'licensed' as has_seat,
    false as is_arriving,
    true as is_unchanged
from unchanged
