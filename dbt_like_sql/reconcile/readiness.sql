-- The readiness report of a district in counts and names of schools (SPEC 10): people read it before the first sync, and at any time.
-- Counts are those of a sync in which no brake holds anything. Each part of the report has a model of its own.
-- grain: one row per topic and item, also at zero; topic `licenses` also has one per school with licenses of its own, `school <Clever id>`
-- key: district_id, topic, item
-- rules: R5.2, R5.5, R6.1, R6.3, R6.4, R7.6, R9.1
-- decides by: district
-- detail: names of schools, and numbers; never names of people or sections. `support/readiness.py` says what each item means.
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
