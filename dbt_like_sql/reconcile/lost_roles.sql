-- Rostered roles of users that this sync may change, where Clever no longer lists the role; and the window that keeps some of them.
-- grain: one row per user, role and school (none for a district admin)
-- rules: R4.6, R4.8, R5.8, R7.4, R8.1, R14.3
-- decides by: itself
-- held_by: `additions_only` if a window keeps the role; null if it ends. A role that the user gets at another school replaces this one
with endable as (
    -- This sync may change both the user and the school. A role of another source never ends here (R5.8).
    select held.user_id, held.role, held.school_id
    from app.user_roles as held
    inner join app.users as users on held.district_id = users.district_id and held.user_id = users.user_id
    left join reconcile.decisions as decisions on users.user_id = decisions.user_id
    left join reconcile.held_users as held_users
        on users.user_id = held_users.user_id and not held_users.is_rostered and held_users.held_by <> 'additions_only'
    left join reconcile.unshown_users as unshown on users.user_id = unshown.user_id
    left join reconcile.school_status as schools on held.school_id = schools.school_id
    where
        held.district_id = :district_id
        and held.source = 'clever'
        and held.deleted_at is null
        and not users.protected
        and coalesce(decisions.decision, 'none') not in ('frozen', 'held')
        and held_users.user_id is null
        and unshown.user_id is null
        and coalesce(schools.status, 'outside') <> 'frozen'
        -- A hold of kind `empty_collection` holds every soft delete in the district (R7.4).
        and not exists (select 1 from reconcile.holds as holds where holds.kind = 'empty_collection')
),

-- Roles that users get at a school at which they do not have them yet. Only a window asks.
gained as (
    select listed.user_id, listed.role
    from reconcile.roles as listed
    left join app.user_roles as held
        on
            held.district_id = :district_id
            and listed.user_id = held.user_id
            and listed.role = held.role
            and listed.school_id = held.school_id
            and held.deleted_at is null
    where :is_additions_only and listed.is_listed and listed.school_id is not null and held.user_id is null
)
select
    endable.user_id,
    endable.role,
    endable.school_id,
    case
        when
            :is_additions_only
            and not exists (
                select 1
                from gained
                where gained.user_id = endable.user_id and gained.role = endable.role and endable.school_id is not null
            )
            then 'additions_only'
    end as held_by
from endable
where
    not exists (
        select 1
        from reconcile.roles as roles
        where
            roles.user_id = endable.user_id
            and roles.role = endable.role
            and roles.school_id is not distinct from endable.school_id
    )
