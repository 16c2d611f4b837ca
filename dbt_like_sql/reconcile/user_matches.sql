-- Which user each person of the snapshot is, by which rule, and by which rule they got their username.
-- grain: one row per person of the snapshot
-- key: district_id, clever_id
-- rules: R5.1, R5.2, R5.3, R5.4, R5.5
select
    cast(:district_id as bigint) as district_id,
    identities.clever_id,
    identities.user_id,
    identities.decision,
    identities.rule,
    usernames.rule as username_rule
from reconcile.identities as identities
left join reconcile.usernames as usernames on identities.clever_id = usernames.clever_id
