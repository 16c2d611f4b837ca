-- The roles every person may act and enroll in after this sync.
-- grain: one row per user, role and school (none for a district admin)
-- rules: R4.6, R5.8, R8.1
-- is_listed: rostered from Clever; otherwise held already, by somebody or at a school that this sync leaves as it is
select
    identities.clever_id,
    identities.user_id,
    listed.role,
    listed.school_id,
    true as is_listed
from reconcile.identities as identities
inner join reconcile.listed_roles as listed on identities.clever_id = listed.clever_id
where identities.decision in ('link', 'adopt', 'relink', 'create') and not listed.is_frozen
union all
select
    identities.clever_id,
    identities.user_id,
    held.role,
    held.school_id,
    false as is_listed
from reconcile.identities as identities
inner join app.users as users on users.district_id = :district_id and identities.user_id = users.user_id
inner join app.user_roles as held on users.district_id = held.district_id and users.user_id = held.user_id
left join reconcile.schools as schools on held.school_id = schools.school_id
where
    users.deleted_at is null
    and held.deleted_at is null
    and (identities.decision = 'protected' or (identities.decision = 'link' and schools.standing = 'frozen'))
