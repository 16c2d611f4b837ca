-- The difference between the present classrooms and the desired ones. `before` and `after` have only the columns that differ.
-- grain: one row per row of app.classrooms to write
-- rules: R6.1, R7.1, R7.2, R8.1
-- decides by: itself
with desired as (
    select
        desired.classroom_id,
        desired.clever_id,
        desired.school_id,
        desired.name,
        desired.clever_name,
        desired.term_name,
        desired.starts_on,
        desired.ends_on,
        'clever' as source,
        cast(null as timestamptz) as deleted_at
    from reconcile.classroom_status as desired
    where desired.status = 'rostered'
    union all
    select
        removed.classroom_id,
        removed.clever_id,
        removed.school_id,
        removed.name,
        removed.clever_name,
        removed.term_name,
        removed.starts_on,
        removed.ends_on,
        removed.source,
        cast(:synced_at as timestamptz) as deleted_at
    from reconcile.soft_deletes as soft_deletes
    inner join app.classrooms as removed on removed.district_id = :district_id and soft_deletes.entity_id = removed.classroom_id
    where soft_deletes.entity = 'classrooms' and soft_deletes.held_by is null
),

differing as (
    select
        desired.*,
        existing.classroom_id is null as is_new,
        existing.deleted_at as old_deleted_at,
        jsonb_build_object(
            'clever_id', existing.clever_id,
            'school_id', existing.school_id,
            'name', existing.name,
            'clever_name', existing.clever_name,
            'term_name', existing.term_name,
            'starts_on', existing.starts_on,
            'ends_on', existing.ends_on,
            'source', existing.source,
            'deleted_at', existing.deleted_at
        ) as old_values,
        jsonb_build_object(
            'clever_id', desired.clever_id,
            'school_id', desired.school_id,
            'name', desired.name,
            'clever_name', desired.clever_name,
            'term_name', desired.term_name,
            'starts_on', desired.starts_on,
            'ends_on', desired.ends_on,
            'source', desired.source,
            'deleted_at', desired.deleted_at
        ) as new_values
    from desired
    left join app.classrooms as existing on existing.district_id = :district_id and desired.classroom_id = existing.classroom_id
    where
        existing.classroom_id is null
        or (
            not existing.protected
            and (
                desired.clever_id,
                desired.school_id,
                desired.name,
                desired.clever_name,
                desired.term_name,
                desired.starts_on,
                desired.ends_on,
                desired.source,
                desired.deleted_at
            )
            is distinct from (
                existing.clever_id,
                existing.school_id,
                existing.name,
                existing.clever_name,
                existing.term_name,
                existing.starts_on,
                existing.ends_on,
                existing.source,
                existing.deleted_at
            )
        )
)
select
    case
        when is_new then 'create'
        when deleted_at is not null then 'soft_delete'
        when old_deleted_at is not null then 'restore'
        else 'update'
    end as action,
    classroom_id,
    clever_id,
    school_id,
    name,
    clever_name,
    term_name,
    starts_on,
    ends_on,
    source,
    deleted_at,
    case when not is_new then ops.differing(new_values, old_values) end as before,
    case when is_new then jsonb_strip_nulls(new_values) else ops.differing(old_values, new_values) end as after
from differing
