"""Short functions that read the application's rows by Clever id, write rows by hand as people do, and approve holds.

Does not belong here: what Clever sends (`clever.py`).
"""

from typing import Any

from roster_pipeline_tests.reference.driver import LiveDistrict


def user(district: LiveDistrict, clever_id: str) -> dict[str, Any]:
    """The row of app.users with this Clever id."""
    (row,) = district.execute("select * from app.users where district_id = :district and clever_id = :id", id=clever_id)
    return dict(row)


def usernames(district: LiveDistrict) -> dict[str, str]:
    """Username by Clever id (or user id, where there is none) of every active user."""
    rows = district.execute(
        "select coalesce(clever_id, user_id::text) as id, username from app.users where district_id = :district and deleted_at is null"
    )
    return {row["id"]: row["username"] for row in rows}


def active(district: LiveDistrict, table: str) -> set[str]:
    """Clever ids of the active rows of schools, classrooms or users."""
    rows = district.execute(
        f"select clever_id from app.{table} where district_id = :district and deleted_at is null and clever_id is not null"
    )
    return {row["clever_id"] for row in rows}


def roles(district: LiveDistrict, clever_id: str) -> set[tuple[str, str | None]]:
    """The active roles of a user, each with its school's Clever id."""
    rows = district.execute(
        """
        select roles.role, schools.clever_id as school
        from app.user_roles as roles
        inner join app.users as users using (user_id)
        left join app.schools as schools on roles.school_id = schools.school_id
        where roles.district_id = :district and users.clever_id = :id and roles.deleted_at is null
        """,
        id=clever_id,
    )
    return {(row["role"], row["school"]) for row in rows}


def enrolled(district: LiveDistrict, section: str) -> set[tuple[str, str, bool]]:
    """The active enrollments of a classroom: Clever id (or user id) of the person, role, and whether primary."""
    rows = district.execute(
        """
        select coalesce(users.clever_id, users.user_id::text) as id, enrollments.role, enrollments.is_primary
        from app.enrollments as enrollments
        inner join app.users as users using (user_id)
        inner join app.classrooms as classrooms using (classroom_id)
        where classrooms.district_id = :district and classrooms.clever_id = :section and enrollments.deleted_at is null
        """,
        section=section,
    )
    return {(row["id"], row["role"], row["is_primary"]) for row in rows}


def actions(district: LiveDistrict, sync_id: int, entity: str) -> list[str]:
    """The actions of one sync on a table, sorted."""
    return sorted(row["action"] for row in district.changes(sync_id) if row["entity"] == entity)


def quarantine(district: LiveDistrict, sync_id: int) -> set[tuple[str, str, str]]:
    """Resource, Clever id and rule of every quarantined row of one sync."""
    rows = district.execute(
        "select resource, clever_id, rule from ops.quarantine where sync_id = :sync and severity = 'error'", sync=sync_id
    )
    return {(row["resource"], row["clever_id"], row["rule"]) for row in rows}


def approve_open(district: LiveDistrict) -> None:
    """Approve all open holds."""
    for hold_id, hold in district.holds().items():
        if hold.status == "open":
            district.approve(hold_id)


def new_user(district: LiveDistrict, username: str, role: str | None = "student", **columns: Any) -> int:
    """A user made in the application, with plain SQL as the application writes it. Returns the user id."""
    named = {"username": username, "first_name": "Ana", "last_name": "Li", **columns}
    (row,) = district.execute(
        f"insert into app.users (district_id, {', '.join(named)}) values (:district, {', '.join(f':{each}' for each in named)})"
        " returning user_id",
        **named,
    )
    if role is not None:
        school = None if role in ("district_admin", "account_owner") else new_school(district)
        district.execute(
            "insert into app.user_roles (user_id, role, school_id) values (:user, :role, :school)",
            user=row["user_id"],
            role=role,
            school=school,
        )
    return int(row["user_id"])


def new_school(district: LiveDistrict, name: str = "By hand", **columns: Any) -> int:
    """A school made in the application. Returns the school id."""
    named = {"name": name, **columns}
    (row,) = district.execute(
        f"insert into app.schools (district_id, {', '.join(named)}) values (:district, {', '.join(f':{each}' for each in named)})"
        " returning school_id",
        **named,
    )
    return int(row["school_id"])


def change_user(district: LiveDistrict, clever_id: str, **columns: Any) -> None:
    """Change a user by hand, as support does."""
    district.execute(
        f"update app.users set {', '.join(f'{each} = :{each}' for each in columns)} where district_id = :district and clever_id = :id",
        id=clever_id,
        **columns,
    )
