-- Rows without a fault that contradict an earlier row of the same person. A reason never contains a value of the row.
-- grain: one row per row of the file and column that is wrong
-- rules: R5.8, R6.3, R8.2
with people as (
    select
        people.line,
        people.first_name,
        people.last_name,
        people.email,
        people.role,
        people.school_id,
        first_value(people.line) over person as first_line,
        first_value(people.first_name) over person as first_first_name,
        first_value(people.last_name) over person as first_last_name,
        first_value(people.email) over person as first_email,
        first_value(people.school_id) over same_role as first_school_id
    from pg_temp.import_rows as people
    where not exists (select 1 from pg_temp.import_faults as faults where faults.line = people.line)
    window
        person as (partition by people.username_key order by people.line),
        same_role as (partition by people.username_key, people.role order by people.line)
)

select
    people.line,
    compared.column_name,
    'differs from line ' || people.first_line || ', which has the same username' as reason
from people
cross join lateral (
    values
    ('first_name', people.first_name <> people.first_first_name),
    ('last_name', people.last_name <> people.first_last_name),
    ('email', people.email is distinct from people.first_email)
) as compared (column_name, is_different)
where compared.is_different
union all
select
    people.line,
    'school' as column_name,
    'is not the only one of this student: students of this district have one' as reason
from people
where
    not :student_multi_school
    and people.role = 'student'
    and people.school_id <> people.first_school_id
