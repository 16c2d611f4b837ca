-- The imported roles that the file no longer gives to the people in it. Roles of another source stay, and so do those that a file of this
-- kind cannot give.
-- grain: one row per role
-- rules: R8.2
-- ends: false if a row of the person is refused, or one that can be anybody's: then the role stays
with people as (
    select distinct on (username_key)
        username_key,
        user_id,
        line
    from pg_temp.import_accepted
    where user_id is not null
    order by username_key asc, line asc
)
select
    people.line,
    people.username_key,
    held.user_id,
    held.role,
    held.school_id,
    decided.user_id is not null as ends
from people
inner join app.user_roles as held on held.district_id = :district_id and people.user_id = held.user_id
left join pg_temp.import_decided as decided on people.user_id = decided.user_id
where
    held.source = 'csv'
    and held.deleted_at is null
    and held.role = any(cast(:roles as text[]))
    and not exists (
        select 1
        from pg_temp.import_accepted as accepted
        where
            accepted.username_key = people.username_key
            and accepted.role = held.role
            and accepted.school_id is not distinct from held.school_id
    )
