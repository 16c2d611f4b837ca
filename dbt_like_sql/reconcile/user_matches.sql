-- The user that each person of the snapshot was matched with, what this sync does about the person, and by which rules.
-- grain: one row per person of the snapshot
-- key: district_id, clever_id
-- rules: R5.1, R5.2, R5.3, R5.4, R5.5, R5.10, R7.4, R9.2
-- decides by: itself
select
    cast(:district_id as bigint) as district_id,
    decisions.clever_id,
    -- While the first sync waits for approval, no user is created, so the id does not exist yet.
    case
        when decisions.decision <> 'create' or not exists (select 1 from reconcile.holds as holds where holds.kind = 'initial')
            -- The user of the other record, if Clever lists the person twice (R5.10).
            then coalesce(decisions.user_id, duplicates.user_id)
    end as user_id,
    decisions.decision,
    decisions.rule,
    case
        when decisions.is_identity_held and usernames.rule is not null then 'held'
        -- Without a hold the person would get the name. Where no name is decided (a quarantined record), what was said last is still so.
        when free.clever_id is not null and usernames.rule in ('taken', 'contested') then 'withheld'
        when withheld.clever_id is not null and usernames.rule is null and decisions.decision in ('frozen', 'held') then 'withheld'
        else usernames.rule
    end as username_rule,
    decisions.is_admin_held,
    decisions.is_waiting
from reconcile.decisions as decisions
left join reconcile.duplicate_records as duplicates on decisions.clever_id = duplicates.clever_id
left join reconcile.usernames as usernames on decisions.clever_id = usernames.clever_id
left join reconcile.names_without_holds as free on decisions.clever_id = free.clever_id
left join reconcile.withheld_names as withheld on decisions.clever_id = withheld.clever_id
