-- Present roles that people keep, regardless of what Clever lists: roles at a held or quarantined school, and every role of people whose
-- new admin role is held.
-- grain: one row per person, role and school (none for a district admin)
-- rules: R4.6, R7.4
-- decides by: itself
select
    identities.clever_id,
    held.role,
    held.school_id
from reconcile.identities as identities
inner join app.users as users on users.district_id = :district_id and identities.user_id = users.user_id
inner join app.user_roles as held on users.district_id = held.district_id and users.user_id = held.user_id
left join reconcile.school_status as schools on held.school_id = schools.school_id
left join reconcile.held_users as held_users on users.user_id = held_users.user_id
where
    users.deleted_at is null
    and held.deleted_at is null
    and (
        ((identities.decision = 'link' or held_users.is_rostered) and schools.status = 'frozen')
        or exists (select 1 from reconcile.held_admins as held_admins where held_admins.clever_id = identities.clever_id)
    )
