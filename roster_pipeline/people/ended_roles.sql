-- The imported roles that the file ends, for the report. A school's name is not personal.
-- grain: one row per role
-- rules: R8.2
select
    ended.line,
    ended.role,
    schools.name as school
from pg_temp.import_ended as ended
left join app.schools as schools on schools.district_id = :district_id and ended.school_id = schools.school_id
where ended.ends
order by ended.line, ended.role, schools.name, ended.school_id
limit :preview_people
