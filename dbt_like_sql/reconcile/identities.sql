-- Matches each person of the snapshot with an existing user, or decides to create one.
-- grain: one row per person of the snapshot
-- rules: R4.6, R4.8, R5.1, R5.2, R5.3, R5.4, R5.10, R8.1, R8.3
-- decides by: name
-- decision: `link` | `adopt` | `relink` | `create` | `protected` (linked, left unchanged) | `deactivated` (linked, stays deactivated: R8.3)
--           | `relink_deactivated` (gets the new Clever id and stays deactivated)
--           | `frozen` (quarantined: the existing user is left unchanged) | `none` (not rostered; `rule` says why)
-- waits_for: the user that the person would be relinked to, if it waits (rule `relink_waits`: R4.8)
with people as (
    select * from reconcile.people
),

linked as (
    select
        people.clever_id,
        users.user_id,
        users.protected,
        users.do_not_restore and users.deleted_at is not null as stays_deactivated
    from people
    inner join app.users as users on people.clever_id = users.clever_id
    where users.district_id = :district_id
),

newcomers as (
    select people.*
    from people
    where
        people.status = 'rosterable'
        and not exists (select 1 from linked where linked.clever_id = people.clever_id)
        -- Somebody who is listed twice gets no second account (R5.10).
        and not exists (select 1 from reconcile.duplicate_records as duplicates where duplicates.clever_id = people.clever_id)
),

-- What R5.3 compares. The username is the one that Clever gives, also of an admin.
described as (
    select
        newcomers.clever_id,
        newcomers.family,
        users.sis_id,
        users.first_name,
        users.last_name,
        -- An existing key is used if there is one: normalizing a name is slow. So names are normalized below, for few people.
        case
            when users.username = newcomers.desired_username then newcomers.desired_key
            else app.normalize_username(users.username)
        end as district_username_key
    from newcomers
    inner join staging.users as users on users.district_id = :district_id and newcomers.clever_id = users.clever_id
),

-- Users that can match a newcomer: they have no Clever id (R5.2), or one that is not in this snapshot (R5.3). Two of three always include
-- the username or the sis_id.
candidates as (
    select
        users.user_id,
        users.clever_id,
        users.username_key,
        users.sis_id,
        app.normalize_username(users.district_username) as district_username_key,
        app.normalize_username(users.first_name) as first_name_key,
        app.normalize_username(users.last_name) as last_name_key,
        users.deleted_at is null as is_active,
        users.do_not_restore,
        array_agg(roles.role) as roles,
        case
            -- Active roles decide the family. If the user has none, ended roles do.
            when bool_or(roles.role <> 'student' and roles.deleted_at is null) then 'staff'
            when bool_or(roles.role = 'student' and roles.deleted_at is null) then 'student'
            when bool_or(roles.role <> 'student') then 'staff'
            when bool_or(roles.role = 'student') then 'student'
        end as family
    from app.users as users
    left join app.user_roles as roles on users.district_id = roles.district_id and users.user_id = roles.user_id
    where
        users.district_id = :district_id
        and not users.protected
        and not exists (select 1 from people where people.clever_id = users.clever_id and people.status <> 'unreadable')
        and case
            when users.clever_id is null then users.username_key in (select newcomers.desired_key from newcomers)
            else
                users.sis_id in (select described.sis_id from described)
                or app.normalize_username(users.district_username) in (select described.district_username_key from described)
        end
    group by users.user_id
),

adopt_claims as (
    select family, desired_key, min(clever_id) as clever_id
    from newcomers
    group by family, desired_key
    having count(*) = 1
),

adopt_candidates as (
    select
        user_id,
        family,
        username_key,
        is_active,
        count(*) filter (where is_active) over same_name as active_count,
        count(*) over same_name as all_count
    from candidates
    where clever_id is null and not do_not_restore
    window same_name as (partition by family, username_key)
),

adopted as (
    select adopt_claims.clever_id, adopt_candidates.user_id
    from adopt_claims
    inner join adopt_candidates
        on adopt_claims.family = adopt_candidates.family and adopt_claims.desired_key = adopt_candidates.username_key
    where
        -- There must be exactly one candidate. Soft-deleted candidates count only if none is active.
        case
            when adopt_candidates.active_count > 0 then adopt_candidates.is_active and adopt_candidates.active_count = 1
            else adopt_candidates.all_count = 1
        end
),

unrecognised as (
    select * from described where not exists (select 1 from adopted where adopted.clever_id = described.clever_id)
),

left_behind as (
    select * from candidates where clever_id is not null
),

agreeing as (
    select unrecognised.clever_id, left_behind.user_id
    from unrecognised
    inner join left_behind
        on unrecognised.family = left_behind.family and unrecognised.district_username_key = left_behind.district_username_key
    where
        unrecognised.sis_id = left_behind.sis_id
        or (
            app.normalize_username(unrecognised.first_name) = left_behind.first_name_key
            and app.normalize_username(unrecognised.last_name) = left_behind.last_name_key
        )
    union
    select unrecognised.clever_id, left_behind.user_id
    from unrecognised
    inner join left_behind on unrecognised.family = left_behind.family and unrecognised.sis_id = left_behind.sis_id
    where
        app.normalize_username(unrecognised.first_name) = left_behind.first_name_key
        and app.normalize_username(unrecognised.last_name) = left_behind.last_name_key
),

relink_pairs as (
    select
        agreeing.clever_id,
        agreeing.user_id,
        left_behind.do_not_restore and not left_behind.is_active as stays_deactivated,
        -- While an element of a collection cannot be read, nobody of that role is relinked: the old Clever id may be in it (R4.8).
        coalesce(exists (
            select 1
            from staging.unreadable as unreadable
            where
                (unreadable.collection = 'students' and (users.student_schools is not null or 'student' = any(left_behind.roles)))
                or (unreadable.collection = 'teachers' and (users.teacher_schools is not null or 'teacher' = any(left_behind.roles)))
                or (unreadable.collection = 'staff' and (users.staff_schools is not null or 'school_admin' = any(left_behind.roles)))
                or (
                    unreadable.collection = 'district_admins' and (users.is_district_admin or 'district_admin' = any(left_behind.roles))
                )
        ), false) as waits,
        count(*) over (partition by agreeing.clever_id) as users_of_person,
        count(*) over (partition by agreeing.user_id) as persons_of_user
    from agreeing
    inner join left_behind on agreeing.user_id = left_behind.user_id
    inner join staging.users as users on users.district_id = :district_id and agreeing.clever_id = users.clever_id
),

relinked as (
    select clever_id, user_id, stays_deactivated, waits
    from relink_pairs
    where users_of_person = 1 and persons_of_user = 1
),

decided as (
    select
        people.clever_id,
        coalesce(linked.user_id, adopted.user_id, case when not relinked.waits then relinked.user_id end) as user_id,
        case when relinked.waits then relinked.user_id end as waits_for,
        case
            when people.status in ('quarantined', 'unreadable', 'username_taken') and linked.user_id is not null then 'frozen'
            when people.status in ('quarantined', 'unreadable', 'username_taken') then 'none'
            when linked.protected then 'protected'
            when linked.stays_deactivated then 'deactivated'
            when people.status <> 'rosterable' then 'none'
            when linked.user_id is not null then 'link'
            when duplicates.clever_id is not null then 'none'
            when adopted.user_id is not null then 'adopt'
            when relinked.waits then 'none'
            when relinked.user_id is not null then 'relink'
            else 'create'
        end as decision,
        case
            when people.status <> 'rosterable' then people.status
            when linked.user_id is not null then 'clever_id'
            when duplicates.clever_id is not null then 'duplicate_record'
            when adopted.user_id is not null then 'username'
            when relinked.waits then 'relink_waits'
            when relinked.user_id is not null then 'two_of_three'
            else 'new'
        end as rule,
        coalesce(relinked.stays_deactivated, false) as relinks_deactivated
    from people
    left join linked on people.clever_id = linked.clever_id
    left join reconcile.duplicate_records as duplicates on people.clever_id = duplicates.clever_id
    left join adopted on people.clever_id = adopted.clever_id
    left join relinked on people.clever_id = relinked.clever_id
)
select
    clever_id,
    -- A new user gets its id here, so that the rest of the plan can refer to it before the user is written.
    case when decision = 'create' then nextval(cast(:user_ids as regclass)) else user_id end as user_id,
    case when decision = 'relink' and relinks_deactivated then 'relink_deactivated' else decision end as decision,
    rule,
    waits_for
from decided
