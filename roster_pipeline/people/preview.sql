-- The people that an import would write, for the user who runs the preview. No other query of an import returns personal data (SPEC 12).
-- grain: one row per person who would be created, restored or updated
-- rules: R8.2
select
    people.line,
    people.action,
    people.username,
    people.first_name,
    people.last_name,
    people.changed,
    array(
        select held.role || coalesce(' at ' || schools.name, '')
        from (
            select
                roles.role,
                roles.school_id
            from pg_temp.import_roles as roles
            where roles.username_key = people.username_key
            union
            select
                user_roles.role,
                user_roles.school_id
            from app.user_roles as user_roles
            where
                user_roles.district_id = :district_id
                and user_roles.user_id = people.user_id
                and user_roles.deleted_at is null
                and not exists (
                    select 1
                    from pg_temp.import_ended as ended
                    where
                        ended.ends
                        and ended.user_id = user_roles.user_id
                        and ended.role = user_roles.role
                        and ended.school_id is not distinct from user_roles.school_id
                )
        ) as held
        left join app.schools as schools on schools.district_id = :district_id and held.school_id = schools.school_id
        -- sqlfluff does not see the tables of a subquery in array(...).
        order by held.role, schools.name, held.school_id -- noqa: RF01
    ) as roles,
    array(
        select ended.role || coalesce(' at ' || schools.name, '')
        from pg_temp.import_ended as ended
        left join app.schools as schools on schools.district_id = :district_id and ended.school_id = schools.school_id
        where ended.ends and ended.username_key = people.username_key
        order by ended.role, schools.name, ended.school_id -- noqa: RF01
    ) as ends
from pg_temp.import_people as people
where people.action <> 'none'
order by people.line
limit :preview_people
