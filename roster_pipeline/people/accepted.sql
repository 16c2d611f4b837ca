-- The rows to import: all that are not refused.
-- grain: one row per accepted row of the file
-- rules: R8.2
select
    people.line,
    people.username,
    people.username_key,
    people.first_name,
    people.last_name,
    people.role,
    people.school_id,
    people.email,
    people.user_id
from pg_temp.import_rows as people
where not exists (select 1 from pg_temp.import_refused as refused where refused.line = people.line)
