-- The username each rostered person gets.
-- grain: one row per person to be rostered
-- rules: R5.5, R5.6, R5.9, R7.4
-- decides by: name
-- rule: own_id (admin, or none given) | kept (already has it) | given (the only claimant) | taken (belongs to somebody who stays)
--       | contested (several claimants, nobody has it). Whoever does not get the name gets the Clever id.
with rostered as (
    select
        people.clever_id,
        wanted.username as wanted_username,
        wanted.username_key as wanted_key,
        people.own_key,
        decisions.user_id,
        users.deleted_at is null and users.username_key = wanted.username_key as is_incumbent
    from reconcile.decisions as decisions
    inner join reconcile.people as people on decisions.clever_id = people.clever_id
    left join app.users as users on users.district_id = :district_id and decisions.user_id = users.user_id
    cross join lateral (
        select
            case
                -- Whose role of a district admin is held keeps the username until then (R7.4).
                when decisions.keeps_username then coalesce(users.username, people.plain_username)
                when decisions.is_admin_held then people.plain_username
                else people.wanted_username
            end as username,
            -- The key of the same, from where it is known: normalizing a name takes long.
            case
                when decisions.keeps_username then coalesce(users.username_key, app.normalize_username(people.plain_username))
                when decisions.is_admin_held then app.normalize_username(people.plain_username)
                else people.wanted_key
            end as username_key
    ) as wanted
    where decisions.decision in ('link', 'adopt', 'relink', 'create')
),

-- Active users whom this sync leaves exactly as they are keep their names.
untouched_names as (
    select users.username_key
    from app.users as users
    left join reconcile.decisions as decisions on users.user_id = decisions.user_id
    left join reconcile.soft_deletes as gone on gone.entity = 'users' and users.user_id = gone.entity_id
    where
        users.district_id = :district_id
        and users.deleted_at is null
        and (users.protected or decisions.decision in ('frozen', 'held') or gone.held_by is not null)
),

claims as (
    select
        rostered.*,
        -- A person's own Clever id is always theirs, so that nobody else can get it as a name.
        untouched_names.username_key is not null or owners.own_key is not null as is_taken,
        bool_or(rostered.is_incumbent) over same_name as has_incumbent,
        count(*) over same_name as claimants
    from rostered
    left join untouched_names on rostered.wanted_key = untouched_names.username_key
    left join rostered as owners on rostered.wanted_key = owners.own_key and rostered.clever_id <> owners.clever_id
    window same_name as (partition by rostered.wanted_key)
),

ruled as (
    select
        clever_id,
        wanted_username,
        case
            when wanted_key = own_key then 'own_id'
            when is_taken then 'taken'
            when is_incumbent then 'kept'
            when coalesce(has_incumbent, false) then 'taken'
            when claimants = 1 then 'given'
            else 'contested'
        end as rule
    from claims
)
select
    clever_id,
    case when rule in ('kept', 'given') then wanted_username else clever_id end as username,
    rule
from ruled
