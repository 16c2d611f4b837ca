-- Everything that is wrong with the readable rows.
-- grain: one row per row of the file and column that is wrong
-- rules: R8.2, R9.2
select
    line,
    column_name,
    reason
from pg_temp.import_faults
union all
select
    line,
    column_name,
    reason
from pg_temp.import_conflicts
union all
select
    line,
    column_name,
    reason
from pg_temp.import_blocked
union all
select
    people.line,
    'role' as column_name,
    'would be a student beyond the licenses: the district holds them back (policy hold)' as reason
from pg_temp.import_rows as people
inner join pg_temp.import_seats as seats on people.username_key = seats.username_key
where people.role = 'student' and seats.is_refused
