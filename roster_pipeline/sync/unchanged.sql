-- For each table of `app` that a plan reads: the number of the district's rows, and a sum over their versions. A row's version is its xmin,
-- the transaction that wrote it. So any write to one of the rows changes the sum.
with versions as (
    select 'districts' as part, xmin from app.districts where district_id = :district_id
    union all
    select 'agreed_schools' as part, xmin from app.agreed_schools where district_id = :district_id
    union all
    select 'schools' as part, xmin from app.schools where district_id = :district_id
    union all
    select 'classrooms' as part, xmin from app.classrooms where district_id = :district_id
    union all
    select 'users' as part, xmin from app.users where district_id = :district_id
    union all
    select 'user_roles' as part, xmin from app.user_roles where district_id = :district_id
    union all
    select 'enrollments' as part, enrollments.xmin
    from app.classrooms as classrooms
    inner join app.enrollments as enrollments on classrooms.classroom_id = enrollments.classroom_id
    where classrooms.district_id = :district_id
)
select part, count(*) as rows, sum(hashtextextended(cast(xmin as text), 0)) as versions
from versions
group by part
