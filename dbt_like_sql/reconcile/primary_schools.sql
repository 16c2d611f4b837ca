-- The primary school of each person after brakes are applied: of a student the first school that is shared and agreed, of others the one
-- that Clever names. A held or quarantined school counts as shared: who belongs there stays there.
-- grain: one row per person with such a school
-- rules: R5.8, R6.3, R7.4
-- decides by: itself
with listed as (
    select clever_id, school, position from reconcile.student_schools
    union all
    -- The last choice, for people who are no students.
    select clever_id, school, null as position
    from staging.users
    where district_id = :district_id and school is not null
)
select distinct on (listed.clever_id)
    listed.clever_id,
    schools.school_id
from listed
inner join reconcile.school_status as schools on listed.school = schools.clever_id and schools.status in ('rostered', 'frozen')
order by listed.clever_id, listed.position nulls last
