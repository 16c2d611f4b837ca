-- The roles that each person has after this sync; people are enrolled only in these.
-- grain: one row per user, role and school (none for a district admin)
-- rules: R4.6, R5.8, R7.4, R8.1
-- decides by: itself
-- is_listed: rostered from Clever. Otherwise a present role of a user, or at a school, that this sync leaves unchanged
select
    decisions.clever_id,
    decisions.user_id,
    granted.role,
    granted.school_id,
    true as is_listed
from reconcile.decisions as decisions
inner join reconcile.granted_roles as granted on decisions.clever_id = granted.clever_id
where decisions.decision in ('link', 'adopt', 'relink', 'create')
union all
select
    decisions.clever_id,
    decisions.user_id,
    held.role,
    held.school_id,
    false as is_listed
from reconcile.decisions as decisions
inner join app.users as users on users.district_id = :district_id and decisions.user_id = users.user_id
inner join app.user_roles as held on users.district_id = held.district_id and users.user_id = held.user_id
where users.deleted_at is null and held.deleted_at is null and decisions.decision = 'protected'
union all
select
    decisions.clever_id,
    decisions.user_id,
    unchanged.role,
    unchanged.school_id,
    false as is_listed
from reconcile.decisions as decisions
inner join reconcile.unchanged_roles as unchanged on decisions.clever_id = unchanged.clever_id
where decisions.decision in ('link', 'adopt', 'relink')
