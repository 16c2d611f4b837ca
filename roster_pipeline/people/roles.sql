-- The roles that people gain, to be written. A role that the user has already, from any source, is left unchanged.
-- grain: one row per person, role and school
-- rules: R8.2
select distinct
    accepted.username_key,
    accepted.role,
    accepted.school_id,
    existing.user_id is null as is_new
from pg_temp.import_accepted as accepted
left join app.user_roles as existing
    on
        existing.district_id = :district_id
        and accepted.user_id = existing.user_id
        and accepted.role = existing.role
        and accepted.school_id is not distinct from existing.school_id
where existing.user_id is null or existing.deleted_at is not null
