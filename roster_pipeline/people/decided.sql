-- The existing users whose roles the file decides: what it no longer gives them ends. All rows of such a person can be read.
-- grain: one row per person
-- rules: R8.2
-- A row that cannot be read, or whose username is no username, can be anybody's. Then the file decides nobody's roles.
with unclear as (
    select 1
    from pg_temp.import_faults as faults
    inner join pg_temp.import_rows as people on faults.line = people.line
    where
        faults.column_name = 'username'
        and not (people.is_in_snapshot or coalesce(people.is_taken, false) or coalesce(people.is_deactivated, false))
)
select distinct
    people.username_key,
    people.user_id
from pg_temp.import_rows as people
where
    people.user_id is not null
    and not :has_unreadable
    and not exists (select 1 from unclear)
    and people.username_key not in (
        select wrong.username_key
        from pg_temp.import_rows as wrong
        where
            wrong.username_key is not null
            and (
                wrong.line in (select faults.line from pg_temp.import_faults as faults)
                or wrong.line in (select conflicts.line from pg_temp.import_conflicts as conflicts)
            )
    )
