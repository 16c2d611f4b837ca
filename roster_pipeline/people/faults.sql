-- What is wrong with a row by itself, without looking at other rows. A reason never contains a value of the row.
-- grain: one row per row of the file and column that is wrong
-- rules: R3.4, R8.2, R8.3
select
    people.line,
    checked.column_name,
    checked.reason
from pg_temp.import_rows as people
cross join lateral (
    values
    (
        'username',
        case
            when coalesce(people.username_key, '') = '' then 'is missing'
            when char_length(people.username_key) > 255 then 'is longer than 255 characters'
            when people.is_in_snapshot then 'is the username or Clever id of a person that Clever shares'
            when people.is_taken then 'belongs to a user who was not imported'
            when people.is_deactivated then 'belongs to a user that support has deactivated on purpose'
        end
    ),
    ('first_name', case when people.first_name is null then 'is missing' end),
    ('last_name', case when people.last_name is null then 'is missing' end),
    (
        'role',
        case
            when people.role is null then 'is missing'
            when people.role <> all(cast(:roles as text[])) then 'must be one of: ' || array_to_string(cast(:roles as text[]), ', ')
        end
    ),
    (
        'school',
        case
            when people.role = 'district_admin' then case when people.school is not null then 'must be empty for a district_admin' end
            when people.school is null then case when people.role = any(cast(:roles as text[])) then 'is missing' end
            when people.is_ambiguous_school then 'is the name of several schools: give the Clever id'
            when people.school_id is null then 'is neither Clever id nor name of an active school of the district'
        end
    ),
    (
        'email',
        case
            when people.email !~ '^[^@\s]+@[^@\s]+$' then 'is not an e-mail address'
            when people.role = 'student' and people.email is not null and not :student_email
                then 'must be empty: the e-mail of students is not stored in this district'
        end
    )
) as checked (column_name, reason)
where checked.reason is not null
