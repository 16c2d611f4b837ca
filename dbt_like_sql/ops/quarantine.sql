-- The findings of this pull: ids of records and the rules that they break, never a value.
-- grain: one row per resource, record and rule
-- rules: R3.6, R4.2, R4.6, R5.5
insert into ops.quarantine (sync_id, district_id, resource, clever_id, rule, severity)
-- A person that is pulled under two roles has each finding twice. It is stored once.
select distinct
    cast(:sync_id as bigint),
    cast(:district_id as bigint),
    resource,
    clever_id,
    rule,
    severity
from clever.findings
union all
select
    :sync_id,
    :district_id,
    'users',
    clever_id,
    'clever_id_taken_as_username',
    'error'
from reconcile.people
where status = 'username_taken'
