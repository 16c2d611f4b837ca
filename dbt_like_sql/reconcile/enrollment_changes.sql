-- The enrollments to write: what differs from the desired ones and is not held.
-- grain: one row per row of app.enrollments to write
-- rules: R7.1, R7.2, R7.4
-- decides by: itself
select
    action,
    classroom_id,
    user_id,
    role,
    is_loss,
    coalesce(is_primary, old_is_primary) as is_primary,
    case when action = 'soft_delete' then old_source else 'clever' end as source,
    case when action = 'soft_delete' then cast(:synced_at as timestamptz) end as deleted_at,
    case
        when action = 'soft_delete' then jsonb_build_object('deleted_at', null)
        when action <> 'create'
            then jsonb_build_object('is_primary', old_is_primary, 'source', old_source, 'deleted_at', old_deleted_at)
    end as before,
    case
        when action = 'soft_delete' then jsonb_build_object('deleted_at', cast(:synced_at as timestamptz))
        when action = 'create' then jsonb_build_object('is_primary', is_primary, 'source', 'clever')
        else jsonb_build_object('is_primary', is_primary, 'source', 'clever', 'deleted_at', null)
    end as after
from reconcile.enrollment_differences
where held_by is null
