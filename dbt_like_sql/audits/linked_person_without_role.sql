-- People with an account whose record in Clever has no role any more: no school is listed, or none that is shared. The account is
-- soft-deleted, unless a brake holds it.
-- grain: one row per offending record
-- rules: R4.7, R5.8
-- decides by: itself
-- severity: warn
select 'users' as resource, people.clever_id
from reconcile.people as people
inner join app.users as users on users.district_id = :district_id and people.clever_id = users.clever_id
where people.status = 'no_role' and not users.protected
