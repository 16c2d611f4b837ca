-- Active users that this pull does not show, but may have in an element that cannot be read. They are left unchanged (R4.8). Most users
-- have a Clever id, and are quarantined instead; these are users without one, and those that somebody waits to be relinked to.
-- grain: one row per user
-- rules: R4.8
-- decides by: itself
select
    users.user_id,
    users.username_key
from app.users as users
where
    users.district_id = :district_id
    and users.clever_id is null
    and users.deleted_at is null
    and not users.protected
    and not exists (
        select 1
        from reconcile.identities as identities
        where identities.user_id = users.user_id and identities.decision <> 'none'
    )
    and exists (
        select 1
        from app.user_roles as held
        inner join (
            values ('student', 'students'), ('teacher', 'teachers'), ('school_admin', 'staff'), ('district_admin', 'district_admins')
        ) as collections (role, collection) on held.role = collections.role
        inner join staging.unreadable as unreadable on collections.collection = unreadable.collection
        where held.district_id = users.district_id and held.user_id = users.user_id and held.deleted_at is null
    )
union
select
    users.user_id,
    users.username_key
from reconcile.identities as identities
inner join app.users as users on users.district_id = :district_id and identities.waits_for = users.user_id
where users.deleted_at is null
