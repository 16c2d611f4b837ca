-- Students of the highest grade, where nearly all of them leave at once in a rollover window: no brake counts them, and none holds them.
-- grain: one row per user
-- rules: R14.4
-- decides by: district
with grades as (
    -- The grades in Clever's order. `Ungraded` and `Other` are no grade that one can leave.
    select grade, rank
    from unnest(array[
            'InfantToddler', 'Preschool', 'PreKindergarten', 'TransitionalKindergarten', 'Kindergarten',
            '1', '2', '3', '4', '5', '6', '7', '8', '9', '10', '11', '12', '13', 'PostGraduate'
        ]) with ordinality as listed (grade, rank)
),

-- What is active before this sync, as the brakes count it.
present as (
    select users.user_id, grades.rank
    from app.users as users
    inner join grades on users.grade = grades.grade
    where
        :is_rollover
        and users.district_id = :district_id
        and users.clever_id is not null
        and users.deleted_at is null
        and exists (
            select 1
            from app.user_roles as held
            where
                held.district_id = :district_id
                and held.user_id = users.user_id
                and held.role = 'student'
                and held.deleted_at is null
        )
),

highest as (
    select present.user_id, candidates.entity_id is not null as is_leaving
    from present
    left join reconcile.deletion_candidates as candidates on candidates.entity = 'users' and present.user_id = candidates.entity_id
    where present.rank = (select max(everybody.rank) from present as everybody)
),

-- At least 80 %, without fractions.
leaving as (
    select 5 * count(*) filter (where is_leaving) >= 4 * count(*) as are_enough from highest
)
select highest.user_id
from highest
cross join leaving
where highest.is_leaving and leaving.are_enough
