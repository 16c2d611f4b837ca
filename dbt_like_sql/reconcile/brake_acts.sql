-- Every act of the plan that a brake counts. A plan is made without any hold first, and its acts are what the brakes count; if something
-- is held, the acts of the second plan are what approvals have released (`sync/brakes.py`).
-- grain: one row per act and brake under which it falls
-- rules: R6.5, R7.3, R7.4, R7.5, R7.6, R14.3, R14.4
-- decides by: district
-- The text of an act is its kind and the Clever id that it is about. An approval releases exactly one hash over these texts (R7.5).
-- user_id: of an act of kind `identities`, the user
with deletions as (
    select
        entity,
        entity_id,
        'delete ' || entity || ' ' || coalesce(clever_id, cast(entity_id as text)) as act
    from reconcile.soft_deletes
    where held_by is null
),

-- Users who stay under their Clever id but lose the username, a way to sign in, or both names. A change of case is none. People
-- who were refused a name only because of a hold get it when the hold ends, and that is no loss.
identities as (
    select
        changes.user_id,
        users.clever_id,
        withheld.clever_id is null and users.username_key <> app.normalize_username(changes.username) as is_username_changed,
        not users.login_methods <@ changes.login_methods as is_sign_in_lost,
        app.normalize_username(users.first_name) <> app.normalize_username(changes.first_name)
        and app.normalize_username(users.last_name) <> app.normalize_username(changes.last_name) as is_renamed
    from reconcile.user_changes as changes
    inner join app.users as users on users.district_id = :district_id and changes.user_id = users.user_id
    left join reconcile.withheld_names as withheld on changes.clever_id = withheld.clever_id
    where changes.action = 'update' and changes.clever_id = users.clever_id
),

deactivated as (
    select deletions.entity_id as user_id, deletions.act, held.role, held.school_id
    from deletions
    inner join app.user_roles as held on held.district_id = :district_id and deletions.entity_id = held.user_id
    where
        deletions.entity = 'users'
        and held.deleted_at is null
        and not exists (select 1 from reconcile.graduates as graduates where graduates.user_id = deletions.entity_id)
),

-- Collections that Clever returns empty. `role` is that of their users in the application.
empty_now as (
    select 'schools' as collection, null as role
    where
        not exists (select 1 from staging.schools where district_id = :district_id)
        and not exists (select 1 from staging.quarantined where district_id = :district_id and resource = 'schools')
        and not exists (select 1 from staging.unreadable as unreadable where unreadable.collection = 'schools')
    union all
    select 'sections' as collection, null as role
    where
        not exists (select 1 from staging.sections where district_id = :district_id)
        and not exists (select 1 from staging.quarantined where district_id = :district_id and resource = 'sections')
        and not exists (select 1 from staging.unreadable as unreadable where unreadable.collection = 'sections')
    union all
    select walked.collection, walked.role
    from (
        values ('students', 'student'), ('teachers', 'teacher'), ('staff', 'school_admin'), ('district_admins', 'district_admin')
    ) as walked (collection, role)
    where not exists (select 1 from clever.users as arrived where arrived.collection = walked.collection)
),

-- Of these, the ones that trip the brake. Before the first sync nothing is active, but a snapshot without one of the four collections that
-- every district has is not trusted with anything that exists (R7.6).
empty_collections as (
    select empty_now.collection
    from empty_now
    where
        :is_first
        and empty_now.collection in ('schools', 'sections', 'students', 'teachers')
        and exists (select 1 from deletions)
    union all
    select empty_now.collection
    from empty_now
    where
        not :is_first
        -- A window that soft-deletes nothing leaves nothing to hold.
        and not :is_additions_only
        and (
            (
                empty_now.collection = 'schools' and exists (
                    select 1 from app.schools
                    where district_id = :district_id and clever_id is not null and deleted_at is null and not protected
                )
            )
            or (
                empty_now.collection = 'sections' and exists (
                    select 1 from app.classrooms
                    where district_id = :district_id and clever_id is not null and deleted_at is null and not protected
                )
            )
            or exists (
                select 1
                from app.user_roles as held
                inner join app.users as users on held.district_id = users.district_id and held.user_id = users.user_id
                where
                    held.district_id = :district_id
                    and held.role = empty_now.role
                    and held.source = 'clever'
                    and held.deleted_at is null
                    and users.clever_id is not null
                    and users.deleted_at is null
                    and not users.protected
            )
        )
),

relinks as (
    select 'relink users ' || clever_id as act
    from reconcile.decisions
    where decision in ('relink', 'relink_deactivated')
    union all
    select 'relink schools ' || schools.clever_id as act
    from reconcile.schools as schools
    inner join reconcile.school_status as decided on schools.school_id = decided.school_id
    where schools.is_relinked and decided.status = 'rostered'
),

first_acts as (
    select act from deletions
    union all
    -- The first sync under a new Clever id of the district is held, whatever it would do (R6.5).
    select 'relink users ' || clever_id as act
    from reconcile.identities
    where decision in ('relink', 'relink_deactivated') and :is_rekeyed
    union all
    select 'relink schools ' || clever_id as act
    from reconcile.schools
    where is_relinked and :is_rekeyed
    union all
    select 'rekey district' as act where :is_rekeyed
)
select distinct
    'district_role' as kind,
    cast(null as bigint) as school_id,
    deactivated.role,
    null as collection,
    deactivated.act,
    cast(null as bigint) as user_id
from deactivated
where not :is_first
union all
select distinct
    'school_role' as kind,
    deactivated.school_id,
    deactivated.role,
    null as collection,
    deactivated.act,
    cast(null as bigint) as user_id
from deactivated
-- Acts at a soft-deleted school do not count: an adopted user keeps roles that were made in the application (R5.8), often at such a school.
inner join app.schools as schools on schools.district_id = :district_id and deactivated.school_id = schools.school_id
where schools.deleted_at is null and not :is_first
union all
select
    'empty_collection' as kind,
    null as school_id,
    null as role,
    empty_collections.collection,
    deletions.act,
    null as user_id
from empty_collections
-- An empty collection is held even when there is nothing to delete: one row without an act.
left join deletions on true
union all
select
    'classrooms' as kind,
    null as school_id,
    null as role,
    null as collection,
    deletions.act,
    null as user_id
from deletions
inner join reconcile.lost_classrooms as lost on deletions.entity_id = lost.classroom_id
where deletions.entity = 'classrooms' and not :is_first
union all
select
    'enrollments' as kind,
    null as school_id,
    ended.role,
    null as collection,
    'end enrollment ' || coalesce(classrooms.clever_id, cast(ended.classroom_id as text))
    || ' ' || coalesce(users.clever_id, cast(ended.user_id as text)) as act,
    null as user_id
from reconcile.enrollment_changes as ended
inner join app.classrooms as classrooms on classrooms.district_id = :district_id and ended.classroom_id = classrooms.classroom_id
inner join app.users as users on users.district_id = :district_id and ended.user_id = users.user_id
where ended.action = 'soft_delete' and ended.is_loss and not :is_first
union all
select
    'identities' as kind,
    null as school_id,
    null as role,
    null as collection,
    'change'
    || case when is_username_changed then ' username' else '' end
    || case when is_sign_in_lost then ' sign-in' else '' end
    || case when is_renamed then ' name' else '' end
    || ' of users ' || clever_id as act,
    user_id
from identities
where (is_username_changed or is_sign_in_lost or is_renamed) and not :is_first
union all
select 'relinks' as kind, null as school_id, null as role, null as collection, act, null as user_id
from relinks
where not :is_first
union all
select
    'new_admins' as kind,
    null as school_id,
    new_admins.role,
    null as collection,
    'admit ' || new_admins.role || ' ' || new_admins.clever_id as act,
    null as user_id
from reconcile.new_admins as new_admins
inner join reconcile.decisions as decisions on new_admins.clever_id = decisions.clever_id
where
    decisions.decision in ('link', 'adopt', 'relink', 'create')
    and exists (
        select 1
        from reconcile.granted_roles as granted
        where granted.clever_id = new_admins.clever_id and granted.role = new_admins.role
    )
    and not :is_first
union all
select 'initial' as kind, null as school_id, null as role, null as collection, act, null as user_id
from first_acts
where :is_first
