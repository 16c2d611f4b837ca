-- The desired columns of each rostered user.
-- grain: one row per person to be rostered
-- rules: R3.4, R5.3, R5.8, R5.9, R6.3, R7.4, R9.2
-- decides by: itself
with people as (
    select
        decisions.clever_id,
        decisions.user_id,
        decisions.decision,
        decisions.is_waiting,
        decisions.is_student,
        decisions.is_identity_held,
        usernames.username
    from reconcile.decisions as decisions
    inner join reconcile.usernames as usernames on decisions.clever_id = usernames.clever_id
    where decisions.decision in ('link', 'adopt', 'relink', 'create')
),

described as (
    select
        people.clever_id,
        people.user_id,
        people.decision,
        people.is_identity_held,
        existing.login_methods as present_methods,
        -- A hold of kind `identities` keeps what somebody is known by and gets in with (R7.4).
        case when people.is_identity_held then existing.username else people.username end as username,
        case when people.is_identity_held then existing.first_name else users.first_name end as first_name,
        case when people.is_identity_held then existing.middle_name else users.middle_name end as middle_name,
        case when people.is_identity_held then existing.last_name else users.last_name end as last_name,
        case when users.student_schools is null or :student_email then users.email end as email,
        -- What Clever gives, whatever username the person gets (R5.3).
        users.username as district_username,
        users.sis_id,
        users.state_id,
        users.student_number,
        users.grade,
        primary_schools.school_id,
        case when people.is_student then case when people.is_waiting then 'waiting' else 'licensed' end end as license_status
    from people
    inner join staging.users as users on users.district_id = :district_id and people.clever_id = users.clever_id
    left join app.users as existing on existing.district_id = :district_id and people.user_id = existing.user_id and people.is_identity_held
    left join reconcile.primary_schools as primary_schools on people.clever_id = primary_schools.clever_id
)
select
    clever_id,
    user_id,
    decision,
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
    license_status,
    case
        when is_identity_held then present_methods
        when username = clever_id then array['clever']
        else
            array['clever'] || array(
                select methods.method
                from unnest(cast(:login_methods as text[])) with ordinality as methods (method, position)
                where methods.method <> 'clever' and (methods.method <> 'google' or email is not null)
                order by methods.position
            )
    end as login_methods
from described
