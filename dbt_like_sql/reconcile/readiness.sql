-- What a person wants to know before a district's first sync, and at any time, in counts and named schools (SPEC 10).
-- Counted as if no brake held anything back. Each part has a model of its own.
-- grain: one row per topic and item, also at zero; topic licenses has one more per school with licenses of its own, `school <Clever id>`
-- key: district_id, topic, item
-- rules: R5.2, R5.5, R6.1, R6.3, R6.4, R7.6, R9.1
-- decides by: district
-- detail: names of schools, and numbers; never of people or sections. What an item means is said in support/readiness.py.
with items as (
    select topic, item, count, detail from reconcile.readiness_places
    union all
    select topic, item, count, detail from reconcile.readiness_people
    union all
    select topic, item, count, detail from reconcile.readiness_existing
    union all
    select topic, item, count, detail from reconcile.readiness_licenses
)
select
    cast(:district_id as bigint) as district_id,
    topic,
    item,
    count,
    detail
from items
