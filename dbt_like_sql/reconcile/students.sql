-- Everybody who is, or would be, an active student after this sync, in the order in which seats are given out.
-- grain: one row per student
-- rules: R9.1, R9.2
-- decides by: itself
-- has_seat: has a seat now and keeps it; is_arriving: would be created or restored
with rostered as (
    select
        judged.clever_id,
        judged.user_id,
        judged.decision,
        users.deleted_at is null and users.user_id is not null as is_active,
        users.license_status,
        coalesce(users.created_at, cast(:synced_at as timestamptz)) as created_at,
        schools.school_id
    from reconcile.judged_identities as judged
    inner join staging.users as shared on shared.district_id = :district_id and judged.clever_id = shared.clever_id
    left join app.users as users on users.district_id = :district_id and judged.user_id = users.user_id
    left join reconcile.school_standings as schools on shared.school = schools.clever_id and schools.standing in ('rostered', 'frozen')
    where
        judged.decision in ('link', 'adopt', 'relink', 'create')
        and judged.is_student
),

-- Active students that this sync leaves unchanged: held, quarantined and protected ones. They are in scope unless their schools are outside.
unchanged as (
    select
        users.clever_id,
        users.user_id,
        users.license_status,
        users.created_at,
        users.school_id
    from app.users as users
    left join reconcile.judged_identities as judged on users.user_id = judged.user_id and judged.decision <> 'none'
    left join reconcile.soft_deletes as removals on removals.entity = 'users' and users.user_id = removals.entity_id
    where
        users.district_id = :district_id
        and users.deleted_at is null
        and (users.protected or judged.decision in ('frozen', 'held') or removals.held_by is not null)
        and exists (
            select 1
            from app.user_roles as held
            left join reconcile.schools as schools on held.school_id = schools.school_id
            where
                held.district_id = users.district_id
                and held.user_id = users.user_id
                and held.role = 'student'
                and held.deleted_at is null
                and coalesce(schools.standing, 'rostered') <> 'outside'
        )
)
select
    clever_id,
    user_id,
    school_id,
    created_at,
    -- An account from before Clever, or of a teacher who becomes a student, has no seat to keep.
    is_active and coalesce(license_status, 'waiting') = 'licensed' as has_seat,
    not is_active as is_arriving,
    false as is_untouched
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
    true as is_untouched
from unchanged
