"""One Clever id in two districts: one of them has what belongs to the other (R3.6).

Does not belong here: records that say themselves that they are another district's (`test_records.py`).
"""

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, section, student, teacher
from roster_pipeline_tests.sync.test_incremental import count_as_large

AUDIT = "clever_id_in_two_districts"


def test_a_clever_id_that_is_active_in_two_districts_is_reported(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """R3.6: people, schools and classrooms, by each kind of plan; not of a district that has left, and not of deleted rows."""
    count_as_large(monkeypatch)
    one, two = LiveDistrict.sign_up(database), LiveDistrict.sign_up(database)
    people = [student("p1", "ann"), student("p2", "ben"), teacher("p3", "cy")]
    one.sync(clever(section("c1", ["p1"]), *people, student("p9", "ivo")))
    one.sync(clever(section("c1", ["p1"]), *people))
    # The school s1 is in every snapshot, and p9 is deleted in the other district.
    own = [student("q1", "una"), teacher("q2", "vic"), student("p9", "ivo"), section("d1", ["q1"])]
    both = student("p1", "ann")
    reports = [two.sync(clever(*own, *more)) for more in ([], [both], [both], [both, section("c1", ["q1"])])]
    assert "touched" in reports[-1].counts
    assert [each.counts["audits"][AUDIT] for each in reports] == [1, 2, 2, 3]
    with database.engine.connect() as connection:
        found = set(connection.exec_driver_sql(f"select resource, clever_id from ops.findings where rule = '{AUDIT}'"))
        kinds = [row.kind for row in connection.exec_driver_sql("select kind from ops.alerts where kind = 'data_quality'")]
    assert found == {("users", "p1"), ("sections", "c1"), ("schools", "s1")}
    assert kinds
    one.execute("update app.districts set status = 'disconnected' where district_id = :district")
    two.forget()
    assert two.sync(clever(*own, both)).counts["audits"][AUDIT] == 0
