"""Two districts with one domain: logins that stand for two people (R6.6)."""

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline_tests.reference.driver import LiveDistrict
from roster_pipeline_tests.sync.clever import clever, student, teacher
from roster_pipeline_tests.sync.test_incremental import count_as_large


def test_a_login_that_stands_for_two_people_is_reported(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """R6.6: usernames as they will be, in active districts of the same domain; also by an incremental plan, and of imported people."""
    count_as_large(monkeypatch)
    one, two = LiveDistrict.sign_up(database), LiveDistrict.sign_up(database)
    one.sync(clever(student("p1", "ann"), student("p2", "ben"), student("p3", "cy"), teacher("p4", "dot")))
    one.execute("update app.districts set domain = 'D.example.' where district_id = :district")
    one.execute("insert into app.users (district_id, username, protected) values (:district, 'eve', true)")
    people = [student("q1", "ANN"), student("q2", "ben"), student("q5", "fay"), teacher("q4", "gus")]
    shared = []
    for snapshot in (clever(*people), clever(*people), clever(*people), clever(*people, student("q6", "Eve"))):
        report = two.sync(snapshot)
        shared.append(report.counts["audits"]["shared_login"])
    assert "touched" in report.counts
    assert shared == [2, 2, 2, 3]
    one.execute("update app.districts set domain = 'other.example' where district_id = :district")
    two.forget()
    assert two.sync(clever(*people)).counts["audits"]["shared_login"] == 0
