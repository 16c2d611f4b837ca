"""What people do between two syncs: the agreement, support's edits and imports, and decisions about holds.

Belongs here: random actions of people, by the same commands or SQL that they use. Does not belong here: what Clever sends (`world.py`),
and the expected result (`model.py`).
"""

import csv
import io
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from roster_pipeline.districts.windows import Kind
from roster_pipeline.people.imports import Kind as File
from roster_pipeline.people.imports import import_people
from roster_pipeline.support.erasure import erase_person
from roster_pipeline_tests.reference.driver import NO_BRAKES, SETTINGS, LiveDistrict
from roster_pipeline_tests.reference.world import SCHOOLS, USERNAMES, mostly

TIGHT = {
    "role_floor": st.integers(0, 2),
    "role_share": st.sampled_from((0.1, 0.25, 0.5)),
    "school_floor": st.integers(0, 2),
    "school_share": st.sampled_from((0.1, 0.3, 0.5)),
    "relink_floor": st.integers(0, 1),
    "relink_share": st.sampled_from((0, 0.1)),
    "admin_floor": st.integers(0, 1),
    "admin_share": st.sampled_from((0, 0.5)),
    "school_admin_floor": st.integers(0, 1),
    "school_admin_share": st.sampled_from((0, 0.5)),
    "classroom_floor": st.integers(0, 2),
    "classroom_share": st.sampled_from((0, 0.3, 0.5)),
    "enrollment_floor": st.integers(0, 2),
    "enrollment_share": st.sampled_from((0, 0.3, 0.5)),
    "identity_floor": st.integers(0, 1),
    "identity_share": st.sampled_from((0, 0.1, 0.3)),
}
BRAKES = st.sampled_from((True, True, True, False)).flatmap(lambda tight: st.fixed_dictionaries(TIGHT) if tight else st.just(NO_BRAKES))
LICENSES = st.sampled_from((None, 0, 1, 2, 3, 4, 6))


def change_agreement(draw: st.DrawFn, district: LiveDistrict) -> None:
    """The agreement's schools and grades change, and Clever ids are recorded for some schools (R6.4)."""
    names = draw(st.lists(st.sampled_from(("North", "South", "Nowhere")), max_size=2, unique=True))
    is_bound = draw(st.booleans())
    district.agree(
        schools=[(name, draw(LICENSES)) for name in ("anchor", *names)] if is_bound else [],
        grades=draw(st.sampled_from(([], ["1"], ["1", "2"], ["1", "Kindergarten"]))),
    )
    if draw(st.integers(0, 3)) == 0:
        district.execute(
            "update app.agreed_schools set clever_id = :clever_id where district_id = :district and name <> 'anchor'"
            " and name = (select min(name) from app.agreed_schools where district_id = :district and name <> 'anchor')",
            clever_id=draw(st.sampled_from(SCHOOLS)),
        )


def change_licenses(draw: st.DrawFn, district: LiveDistrict) -> None:
    """More or fewer licenses, or another policy (R9.2)."""
    district.execute(
        "update app.districts set licenses = :licenses, over_license_policy = :policy where district_id = :district",
        licenses=draw(LICENSES),
        policy=draw(st.sampled_from(("warn", "wait", "wait", "hold", "hold"))),
    )


def change_brakes(draw: st.DrawFn, district: LiveDistrict) -> None:
    """Other limits (R7.3)."""
    district.agree(settings={"brakes": draw(BRAKES)})


def change_settings(draw: st.DrawFn, district: LiveDistrict) -> None:
    """Who decides what classrooms are called (R6.1)."""
    district.agree(settings={"keep_classroom_names": draw(st.booleans())})


def change_windows(draw: st.DrawFn, district: LiveDistrict) -> None:
    """A window is agreed on, which has begun or begins soon (R14.1)."""
    kinds: tuple[Kind, ...] = ("freeze", "additions_only", "additions_only", "rollover", "rollover")
    kind = draw(st.sampled_from(kinds))
    first = draw(st.integers(-1, 1))
    limits = draw(st.sampled_from(({}, {}, {"role_share": 0.25, "role_floor": 0}, {"enrollment_floor": 1, "enrollment_share": 0.3})))
    district.agree_on(kind, first, max(first, 0) + draw(st.integers(0, 2)), **(limits if kind == "rollover" else {}))


def decide_holds(draw: st.DrawFn, district: LiveDistrict) -> bool:
    """Support approves or rejects some holds that wait. Sometimes so much time passes that approvals expire (R7.5).

    Returns:
        Whether a hold was approved.
    """
    waiting = [each for each, hold in district.holds().items() if hold.status in ("open", "rejected")]
    if not waiting:
        return False
    act = draw(st.sampled_from(("nothing", "approve all", "approve all", "approve one", "reject one", "too late")))
    one = draw(st.sampled_from(waiting))
    approved = {"approve all": waiting, "too late": waiting, "approve one": [one]}.get(act, [])
    for each in approved:
        district.approve(each)
    if act == "reject one" and district.holds()[one].status == "open":
        district.reject(one)
    if act == "too late":
        district.clock.now += timedelta(hours=100)
    return bool(approved)


def import_csv(draw: st.DrawFn, district: LiveDistrict) -> None:
    """Support imports people; refused rows are not imported (R8.2)."""
    file = io.StringIO()
    rows = csv.writer(file)
    rows.writerow(["username", "first_name", "last_name", "role", "school", "email"])
    for _ in range(draw(st.integers(1, 2))):
        role = draw(st.sampled_from(("student", "teacher", "school_admin", "district_admin")))
        school = "" if role == "district_admin" else draw(st.sampled_from(("s0", *SCHOOLS, "Anchor", "North")))
        rows.writerow([draw(st.sampled_from((*USERNAMES, "imported"))), "Ima", "Port", role, school, ""])
    kind: File = "users" if draw(st.booleans()) and district.profile == "twig_science" else "admins"
    import_people(district.database, SETTINGS, district.clever_id, io.BytesIO(file.getvalue().encode()), kind)


# Rows of `app`, one by one ------------------------------------------------------------------------------------------------------


def _pick(draw: st.DrawFn, district: LiveDistrict, table: str, order: str) -> dict[str, Any]:
    """One row of a table; empty if the table has none."""
    found = district.execute(f"select * from app.{table} where district_id = :district order by {order}")
    return dict(found[draw(st.integers(0, len(found) - 1))]) if found else {}


def edit_by_hand(draw: st.DrawFn, district: LiveDistrict) -> None:
    """One edit by support or by the application."""
    draw(st.sampled_from(EDITS))(draw, district)


def _new_user(draw: st.DrawFn, district: LiveDistrict) -> None:
    """An account from before Clever, which can be adopted, or is protected."""
    school = _pick(draw, district, "schools", "school_id")
    role = draw(st.sampled_from(("student", "student", "student", "teacher", "district_admin", None)))
    district.execute(
        """
        with made as (
            insert into app.users (district_id, username, first_name, last_name, sis_id, protected, do_not_restore, deleted_at)
            select
                :district, :username, 'Ana', 'Li', '1', :protected, :barred,
                case when :deleted or :barred then timestamptz '2025-01-01' end
            where :deleted or :barred or not exists (
                select from app.users
                where district_id = :district and deleted_at is null and username_key = app.normalize_username(:username))
            returning user_id, deleted_at
        )
        insert into app.user_roles (district_id, user_id, role, school_id, source, deleted_at)
        select :district, user_id, :role, case when :role <> 'district_admin' then cast(:school as bigint) end, :source,
            case when :ended then deleted_at end
        from made where cast(:role as text) is not null and (:role = 'district_admin' or cast(:school as bigint) is not null)
        """,
        username=draw(st.sampled_from(USERNAMES)),
        protected=draw(mostly(st.just(False), st.just(True), 5)),
        barred=draw(mostly(st.just(False), st.just(True), 8)),
        deleted=draw(st.booleans()),
        ended=draw(st.booleans()),
        role=role,
        source=draw(st.sampled_from(("app", "app", "csv", "clever"))),
        school=school.get("school_id"),
    )


def _change_user(draw: st.DrawFn, district: LiveDistrict) -> None:
    change = draw(
        st.sampled_from(
            (
                "first_name = 'Hand'",
                "email = 'hand@x.example', grade = '12', login_methods = '{password}'",
                "school_id = null, sis_id = '3'",
                "protected = true",
                "protected = true",
                "protected = false",
                "deleted_at = '2025-02-02'",
                "deleted_at = '2025-02-02', do_not_restore = true",
                "do_not_restore = false",
                "do_not_restore = true",
                "source = 'app'",
                "clever_id = null, source = 'app'",
                "license_status = 'waiting'",
                "license_status = 'licensed'",
                "license_status = null",
                "created_at = '2025-06-06'",
            )
        )
    )
    user = _pick(draw, district, "users", "user_id").get("user_id")
    district.execute(f"update app.users set {change} where user_id = :user", user=user)


def _rename_user(draw: st.DrawFn, district: LiveDistrict) -> None:
    district.execute(
        """
        update app.users as this set username = :username
        where user_id = :user and (deleted_at is not null or not exists (
            select from app.users as other
            where other.district_id = :district and other.deleted_at is null and other.user_id <> this.user_id
                and other.username_key = app.normalize_username(:username)))
        """,
        user=_pick(draw, district, "users", "user_id").get("user_id"),
        username=draw(st.sampled_from(USERNAMES)),
    )


def _restore_user(draw: st.DrawFn, district: LiveDistrict) -> None:
    district.execute(
        """
        update app.users as this set deleted_at = null
        where user_id = :user and deleted_at is not null and not exists (
            select from app.users as other
            where other.district_id = :district and other.deleted_at is null and other.username_key = this.username_key)
        """,
        user=_pick(draw, district, "users", "user_id").get("user_id"),
    )


def _give_role(draw: st.DrawFn, district: LiveDistrict) -> None:
    user, school = _pick(draw, district, "users", "user_id"), _pick(draw, district, "schools", "school_id")
    if user and school:
        district.execute(
            "insert into app.user_roles (user_id, role, school_id, source) values (:user, :role, :school, :source)"
            " on conflict on constraint user_roles_key do update set deleted_at = null, source = excluded.source",
            user=user["user_id"],
            school=school["school_id"],
            role=draw(st.sampled_from(("student", "teacher", "school_admin"))),
            source=draw(st.sampled_from(("app", "csv"))),
        )


def _change_role(draw: st.DrawFn, district: LiveDistrict) -> None:
    role = _pick(draw, district, "user_roles", "user_id, role, school_id")
    change = draw(st.sampled_from(("deleted_at = '2025-03-03'", "deleted_at = null", "source = 'app'", "source = 'clever'")))
    district.execute(
        f"update app.user_roles set {change} where user_id = :user and role = :role and school_id is not distinct from :school",
        user=role.get("user_id"),
        role=role.get("role"),
        school=role.get("school_id"),
    )


def _enroll(draw: st.DrawFn, district: LiveDistrict) -> None:
    classroom, user = _pick(draw, district, "classrooms", "classroom_id"), _pick(draw, district, "users", "user_id")
    if classroom and user:
        district.execute(
            "insert into app.enrollments (classroom_id, user_id, role) values (:classroom, :user, :role)"
            " on conflict (classroom_id, user_id, role) do update set deleted_at = :deleted, source = 'app', is_primary = false",
            classroom=classroom["classroom_id"],
            user=user["user_id"],
            role=draw(st.sampled_from(("student", "teacher"))),
            deleted=draw(st.sampled_from((None, "2025-04-04"))),
        )


def _new_classroom(draw: st.DrawFn, district: LiveDistrict) -> None:
    district.execute(
        "insert into app.classrooms (district_id, school_id, name, protected) values (:district, :school, 'By hand', :protected)",
        school=_pick(draw, district, "schools", "school_id").get("school_id"),
        protected=draw(st.booleans()),
    )


def _new_school(draw: st.DrawFn, district: LiveDistrict) -> None:
    district.execute(
        "insert into app.schools (district_id, name, protected) values (:district, 'North', :protected)", protected=draw(st.booleans())
    )


def _change_place(draw: st.DrawFn, district: LiveDistrict) -> None:
    table, key = draw(st.sampled_from((("schools", "school_id"), ("classrooms", "classroom_id"), ("classrooms", "classroom_id"))))
    change = draw(st.sampled_from(("name = 'By hand'", "protected = not protected", "deleted_at = '2025-05-05'", "deleted_at = null")))
    place = _pick(draw, district, table, key).get(key)
    district.execute(f"update app.{table} set {change} where {key} = :place", place=place)


def _erase(draw: st.DrawFn, district: LiveDistrict) -> None:
    """One person is erased for good (R18.2)."""
    if user := _pick(draw, district, "users", "user_id"):
        now = district.clock.tick()
        person = user["clever_id"] or str(user["user_id"])
        erase_person(district.database, SETTINGS, district.clever_id, person, by="support", reason="ticket", apply=True, now=now)


EDITS = (
    _erase,
    *(_new_user,) * 5,
    *(_change_user,) * 4,
    *(_rename_user,) * 2,
    _restore_user,
    _give_role,
    _change_role,
    *(_enroll,) * 2,
    _new_classroom,
    _new_school,
    *(_change_place,) * 2,
)

# Other changes by people between two syncs, each in one of so many nights.
CHANGES = {change_agreement: 4, change_licenses: 2, change_brakes: 3, change_settings: 2, change_windows: 3, import_csv: 6}
