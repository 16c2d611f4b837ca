-- The difference between the present users and the desired ones. `before` and `after` have only the columns that differ.
-- grain: one row per row of app.users to write
-- rules: R5.2, R5.3, R5.4, R7.1, R7.2, R8.1, R8.3
-- decides by: itself
with desired as (
    select
        users.decision,
        users.user_id,
        users.clever_id,
        users.username,
        users.first_name,
        users.middle_name,
        users.last_name,
        users.email,
        users.district_username,
        users.sis_id,
        users.state_id,
        users.student_number,
        users.grade,
        users.school_id,
        'clever' as source,
        users.license_status,
        users.login_methods,
        cast(null as timestamptz) as deleted_at
    from reconcile.users as users
    union all
    -- A user that support deactivated on purpose has a new Clever id: only the id is updated (R8.3).
    select
        decisions.decision,
        users.user_id,
        decisions.clever_id,
        users.username,
        users.first_name,
        users.middle_name,
        users.last_name,
        users.email,
        users.district_username,
        users.sis_id,
        users.state_id,
        users.student_number,
        users.grade,
        users.school_id,
        users.source,
        users.license_status,
        users.login_methods,
        users.deleted_at
    from reconcile.decisions as decisions
    inner join app.users as users on users.district_id = :district_id and decisions.user_id = users.user_id
    where decisions.decision = 'relink_deactivated'
    union all
    select
        'soft_delete' as decision,
        users.user_id,
        users.clever_id,
        users.username,
        users.first_name,
        users.middle_name,
        users.last_name,
        users.email,
        users.district_username,
        users.sis_id,
        users.state_id,
        users.student_number,
        users.grade,
        users.school_id,
        users.source,
        users.license_status,
        users.login_methods,
        cast(:synced_at as timestamptz) as deleted_at
    from reconcile.soft_deletes as soft_deletes
    inner join app.users as users on users.district_id = :district_id and soft_deletes.entity_id = users.user_id
    where soft_deletes.entity = 'users' and soft_deletes.held_by is null
),

differing as (
    select
        desired.*,
        existing.user_id is null as is_new,
        existing.deleted_at as old_deleted_at,
        case
            when existing.user_id is not null
                then
                    jsonb_build_object(
                        'clever_id', existing.clever_id,
                        'username', existing.username,
                        'first_name', existing.first_name,
                        'middle_name', existing.middle_name,
                        'last_name', existing.last_name,
                        'email', existing.email,
                        'district_username', existing.district_username,
                        'sis_id', existing.sis_id,
                        'state_id', existing.state_id,
                        'student_number', existing.student_number,
                        'grade', existing.grade,
                        'school_id', existing.school_id,
                        'source', existing.source,
                        'license_status', existing.license_status,
                        'login_methods', existing.login_methods,
                        'deleted_at', existing.deleted_at
                    )
        end as old_values,
        jsonb_build_object(
            'clever_id', desired.clever_id,
            'username', desired.username,
            'first_name', desired.first_name,
            'middle_name', desired.middle_name,
            'last_name', desired.last_name,
            'email', desired.email,
            'district_username', desired.district_username,
            'sis_id', desired.sis_id,
            'state_id', desired.state_id,
            'student_number', desired.student_number,
            'grade', desired.grade,
            'school_id', desired.school_id,
            'source', desired.source,
            'license_status', desired.license_status,
            'login_methods', desired.login_methods,
            'deleted_at', desired.deleted_at
        ) as new_values
    from desired
    left join app.users as existing on existing.district_id = :district_id and desired.user_id = existing.user_id
    where
        existing.user_id is null
        or (
            desired.clever_id, desired.username, desired.first_name, desired.middle_name, desired.last_name, desired.email,
            desired.district_username, desired.sis_id, desired.state_id, desired.student_number, desired.grade,
            desired.school_id, desired.source, desired.license_status, desired.login_methods, desired.deleted_at
        ) is distinct from (
            existing.clever_id, existing.username, existing.first_name, existing.middle_name, existing.last_name, existing.email,
            existing.district_username, existing.sis_id, existing.state_id, existing.student_number, existing.grade,
            existing.school_id, existing.source, existing.license_status, existing.login_methods, existing.deleted_at
        )
)
select
    case
        when decision = 'soft_delete' then 'soft_delete'
        when is_new then 'create'
        when decision = 'adopt' then 'adopt'
        when decision in ('relink', 'relink_deactivated') then 'relink'
        when old_deleted_at is not null then 'restore'
        else 'update'
    end as action,
    user_id,
    clever_id,
    username,
    first_name,
    middle_name,
    last_name,
    email,
    district_username,
    sis_id,
    state_id,
    student_number,
    grade,
    school_id,
    source,
    license_status,
    login_methods,
    deleted_at,
    case when not is_new then ops.differing(new_values, old_values) end as before,
    case when is_new then jsonb_strip_nulls(new_values) else ops.differing(old_values, new_values) end as after
from differing
