-- What is wrong with a row by itself, without looking at other rows. A reason never contains a value of the row.
-- grain: one row per row of the file and column that is wrong
-- rules: R3.4, R8.2, R8.3
-- A value that a spreadsheet has rewritten is refused in every column, in words that name the spreadsheet: the value before is lost.
with rewritten (position, pattern, reason) as (
    values
    (1, '^=', 'begins with =, like a formula of a spreadsheet: enter only the value'),
    (
        2,
        '^[-+]?[0-9]+([.,][0-9]+)?[eE][-+][0-9]+$',
        'is a number that a spreadsheet has shortened, like 1.2E+11: format the column as text, and enter the value again'
    ),
    (
        3,
        '^[0-9]+[.,]0+$',
        'is a number to which a spreadsheet has added decimal places: format the column as text, and enter the value again'
    ),
    (
        4,
        '^([0-9]{1,2}-(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)(-[0-9]{2,4})?'
        || '|(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)-[0-9]{2,4}'
        || '|[0-9]{1,2}/[0-9]{1,2}/[0-9]{2,4}|[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9:]+)?)$',
        'is a date that a spreadsheet has made of another value, like 1-Mar: format the column as text, and enter the value again'
    ),
    (
        5,
        '^#(NULL!|DIV/0!|VALUE!|REF!|NAME[?]|NUM!|N/A|SPILL!|CALC!|GETTING_DATA|BLOCKED!|#+)$',
        'is an error of a spreadsheet, like #N/A: enter the value again'
    ),
    (6, U&'\FFFD', 'contains a character that was lost when a spreadsheet saved the file: save it as CSV UTF-8')
),

cells as (
    select
        people.line,
        checked.column_name,
        checked.value,
        checked.reason
    from pg_temp.import_rows as people
    cross join lateral (
        values
        (
            'username',
            people.username,
            case
                when coalesce(people.username_key, '') = '' then 'is missing'
                when char_length(people.username_key) > 255 then 'is longer than 255 characters'
                when people.is_in_snapshot then 'is the username or Clever id of a person that Clever shares'
                when people.is_taken then 'belongs to a user who was not imported'
                when people.is_deactivated then 'belongs to a user that support has deactivated on purpose'
            end
        ),
        ('first_name', people.first_name, case when people.first_name is null then 'is missing' end),
        ('last_name', people.last_name, case when people.last_name is null then 'is missing' end),
        (
            'role',
            people.role,
            case
                when people.role is null then 'is missing'
                when people.role <> all(cast(:roles as text[])) then 'must be one of: ' || array_to_string(cast(:roles as text[]), ', ')
            end
        ),
        (
            'school',
            -- A school can have a name like a date. If it is known, it is right.
            case when people.school_id is null then people.school end,
            case
                when people.role = 'district_admin' then case when people.school is not null then 'must be empty for a district_admin' end
                when people.school is null then case when people.role = any(cast(:roles as text[])) then 'is missing' end
                when people.is_ambiguous_school then 'is the name of several schools: give the Clever id'
                when people.school_id is null then 'is neither Clever id nor name of an active school of the district'
            end
        ),
        (
            'email',
            people.email,
            case
                when people.email !~ '^[^@\s]+@[^@\s]+$' then 'is not an e-mail address'
                when people.role = 'student' and people.email is not null and not :student_email
                    then 'must be empty: the e-mail of students is not stored in this district'
            end
        )
    ) as checked (column_name, value, reason)
),

-- Names can have such characters (R4.5): in some scripts they decide how the name looks.
explained as (
    select
        cells.line,
        cells.column_name,
        case
            when cells.column_name not in ('first_name', 'last_name') and cells.value ~ :invisible
                then 'contains a character that nobody can see or type, as spreadsheets and web pages have them: enter it again by hand'
            else
                coalesce(
                    (
                        select rewritten.reason from rewritten
                        where cells.value ~ rewritten.pattern
                        order by rewritten.position
                        limit 1
                    ),
                    cells.reason
                )
        end as reason
    from cells
)
select
    line,
    column_name,
    reason
from explained
where reason is not null
