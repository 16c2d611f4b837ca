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
left join reconcile.new_admins as new_admins on identities.clever_id = new_admins.clever_id
where
    users.deleted_at is null
    and held.deleted_at is null
    and (
        (identities.decision = 'link' and schools.status = 'frozen')
        or (new_admins.clever_id is not null and exists (select 1 from reconcile.holds as holds where holds.kind = 'new_admins'))
    )
