-- The difference between the present schools and the desired ones. `before` and `after` have only the columns that differ.
-- grain: one row per row of app.schools to write
-- rules: R6.1, R6.5, R7.1, R7.2, R8.1
-- decides by: itself
with desired as (
    select
        desired.school_id,
        desired.clever_id,
        desired.name,
        'clever' as source,
        cast(null as timestamptz) as deleted_at
    from reconcile.school_status as desired
    where desired.status = 'rostered'
    union all
    select
        removed.school_id,
        removed.clever_id,
        removed.name,
        removed.source,
        cast(:synced_at as timestamptz) as deleted_at
    from reconcile.soft_deletes as soft_deletes
    inner join app.schools as removed on removed.district_id = :district_id and soft_deletes.entity_id = removed.school_id
    where soft_deletes.entity = 'schools' and soft_deletes.held_by is null
),

differing as (
    select
        desired.*,
        existing.school_id is null as is_new,
        existing.clever_id as old_clever_id,
        existing.deleted_at as old_deleted_at,
        jsonb_build_object(
            'clever_id', existing.clever_id,
            'name', existing.name,
            'source', existing.source,
            'deleted_at', existing.deleted_at
        ) as old_values,
        jsonb_build_object(
            'clever_id', desired.clever_id,
            'name', desired.name,
            'source', desired.source,
            'deleted_at', desired.deleted_at
        ) as new_values
    from desired
    left join app.schools as existing on existing.district_id = :district_id and desired.school_id = existing.school_id
    where
        existing.school_id is null
        or (
            not existing.protected
            and (desired.clever_id, desired.name, desired.source, desired.deleted_at)
            is distinct from (existing.clever_id, existing.name, existing.source, existing.deleted_at)
        )
)
select
    case
        when is_new then 'create'
        when deleted_at is not null then 'soft_delete'
        when coalesce(clever_id, '') <> coalesce(old_clever_id, '') then 'relink'
        when old_deleted_at is not null then 'restore'
        else 'update'
    end as action,
    school_id,
    clever_id,
    name,
    source,
    deleted_at,
    case when not is_new then ops.differing(new_values, old_values) end as before,
    case when is_new then jsonb_strip_nulls(new_values) else ops.differing(old_values, new_values) end as after
from differing
