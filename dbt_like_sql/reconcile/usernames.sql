-- The username each rostered person gets.
-- grain: one row per person to be rostered
-- rules: R4.8, R5.5, R5.6, R5.9, R7.4
-- decides by: name
-- rule: `own_id` (an admin, or Clever sends no username) | `kept` (the user has the name already) | `given` (the only claimant)
--       | `taken` (the name of another user, or Clever id of another person) | `contested` (several claimants, none has it)
-- A person who does not get the name gets the Clever id as username.
with rostered as (
    select
        people.clever_id,
        desired.username as desired_username,
        desired.username_key as desired_key,
        people.own_key,
        decisions.user_id,
        users.deleted_at is null and users.username_key = desired.username_key as is_incumbent
    from reconcile.decisions as decisions
    inner join reconcile.people as people on decisions.clever_id = people.clever_id
    left join app.users as users on users.district_id = :district_id and decisions.user_id = users.user_id
    cross join lateral (
        select
            case
                -- While a new admin role or a change of names is held, the username does not change (R7.4).
                when decisions.keeps_username and users.username is not null then users.username
                when decisions.takes_plain_username then people.plain_username
                else people.desired_username
            end as username,
            -- The key of that username. An existing key is used if there is one: normalizing a name is slow.
            case
                when decisions.keeps_username and users.username_key is not null then users.username_key
                when decisions.takes_plain_username then app.normalize_username(people.plain_username)
                else people.desired_key
            end as username_key
    ) as desired
    where decisions.decision in ('link', 'adopt', 'relink', 'create')
),

-- Active users that this sync leaves unchanged keep their names.
unchanged_names as (
    select users.username_key
    from app.users as users
    left join reconcile.decisions as decisions on users.user_id = decisions.user_id
    left join reconcile.held_users as held_users on users.user_id = held_users.user_id
    where
        users.district_id = :district_id
        and users.deleted_at is null
        and (users.protected or decisions.decision in ('frozen', 'held') or not held_users.is_rostered)
    union all
    select username_key from reconcile.unshown_users
),

claims as (
    select
        rostered.*,
        -- A Clever id is always reserved for its person, so nobody else can get it as a username.
        unchanged_names.username_key is not null or owners.own_key is not null as is_taken,
        bool_or(rostered.is_incumbent) over same_name as has_incumbent,
        count(*) over same_name as claimants
    from rostered
    left join unchanged_names on rostered.desired_key = unchanged_names.username_key
    left join rostered as owners on rostered.desired_key = owners.own_key and rostered.clever_id <> owners.clever_id
    window same_name as (partition by rostered.desired_key)
),

ruled as (
    select
        clever_id,
        desired_username,
        case
            when desired_key = own_key then 'own_id'
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
    case when rule in ('kept', 'given') then desired_username else clever_id end as username,
    rule
from ruled
