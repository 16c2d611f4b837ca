-- Second records of people that Clever lists twice: same role family, sis_id and names as one record with a user. No second account is
-- made; sections that list either record enroll the user.
-- grain: one row per second record
-- rules: R5.10
-- decides by: name
-- linked_id: the Clever id of the record with the user
-- user_id: that user
with linked as (
    select people.clever_id, people.family, users.user_id
    from reconcile.people as people
    inner join app.users as users on people.clever_id = users.clever_id
    where
        users.district_id = :district_id
        -- A record that is not rostered stands for nobody who could be enrolled.
        and (
            people.status in ('rosterable', 'quarantined', 'username_taken')
            or users.protected
            or (users.do_not_restore and users.deleted_at is not null)
        )
),

newcomers as (
    select people.clever_id, people.family, shared.sis_id, shared.first_name, shared.last_name
    from reconcile.people as people
    inner join staging.users as shared on shared.district_id = :district_id and people.clever_id = shared.clever_id
    where
        people.status = 'rosterable'
        and shared.sis_id is not null
        and not exists (
            select 1 from app.users as users where users.district_id = :district_id and users.clever_id = people.clever_id
        )
),

pairs as (
    select
        newcomers.clever_id,
        linked.clever_id as linked_id,
        linked.user_id,
        count(*) over (partition by newcomers.clever_id) as linked_records
    from newcomers
    inner join staging.users as others on others.district_id = :district_id and newcomers.sis_id = others.sis_id
    inner join linked on others.clever_id = linked.clever_id and newcomers.family = linked.family
    where
        -- `is true` lets PostgreSQL compare names of the few pairs only; without it, it would normalize the names of all people.
        (
            app.normalize_username(newcomers.first_name) = app.normalize_username(others.first_name)
            and app.normalize_username(newcomers.last_name) = app.normalize_username(others.last_name)
        ) is true
)
select clever_id, linked_id, user_id
from pairs
where linked_records = 1
