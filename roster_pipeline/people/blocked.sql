-- Rows of students who would then be at two schools, in a district whose students have one: the role at the other school does not end.
-- grain: one row per row of the file
-- rules: R5.8, R6.3, R8.2
select
    people.line,
    'school' as column_name,
    'is not the only one of this student: students of this district have one' as reason
from pg_temp.import_rows as people
where
    not :student_multi_school
    and people.role = 'student'
    and people.line not in (select faults.line from pg_temp.import_faults as faults)
    and people.line not in (select conflicts.line from pg_temp.import_conflicts as conflicts)
    and exists (
        select 1
        from app.user_roles as held
        where
            held.district_id = :district_id
            and held.user_id = people.user_id
            and held.role = 'student'
            and held.deleted_at is null
            and held.school_id <> people.school_id
            and not (held.source = 'csv' and people.username_key in (select decided.username_key from pg_temp.import_decided as decided))
    )
