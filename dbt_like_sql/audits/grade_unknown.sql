-- Students without a known grade, if the agreement names grades. They count as inside the agreement.
-- grain: one row per offending record
-- rules: R6.4
-- decides by: itself
-- severity: warn
select 'users' as resource, users.clever_id
from staging.users as users
inner join app.districts as districts on users.district_id = districts.district_id
where
    users.district_id = :district_id
    and users.student_schools is not null
    and users.grade is null
    and cardinality(districts.agreed_grades) > 0
