-- Students whose grade is outside the agreement. This is the only place of the grade rule: a student without a row here is inside.
-- If no grades are agreed, all are inside. A student without a known grade is inside.
-- grain: one row per student of the snapshot
-- rules: R6.4
-- decides by: itself
select users.clever_id
from staging.users as users
inner join app.districts as districts on users.district_id = districts.district_id
where
    users.district_id = :district_id
    and users.student_schools is not null
    and cardinality(districts.agreed_grades) > 0
    and users.grade <> all(districts.agreed_grades)
