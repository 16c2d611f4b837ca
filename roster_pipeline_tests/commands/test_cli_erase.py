"""R18.1, R18.2: `roster erase` and `roster district offboard` as a person uses them. What is removed: `support/test_erasure.py`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roster_pipeline.database.engine import Database
from roster_pipeline.database.lock import district_lock
from roster_pipeline.sandbox import District

from .conftest import Roster

Query = Callable[..., list[Any]]
WHO = ("--by", "Kim, support", "--reason", "ticket 4711")


@pytest.fixture
def student(roster: Roster, district: District) -> str:
    """The Clever id of a student of a district that has been synced."""
    assert roster("sync", district.id).status == 0
    return district.shared("users", "student")[0]


def test_a_parents_request(roster: Roster, district: District, student: str, query: Query) -> None:
    """Dry run, erasure, and the sync after it; then the Clever id is answered with the purge."""
    [(user_id,)] = query("update app.users set last_name = 'Zzyzx' where clever_id = :id returning user_id", id=student)
    planned = roster("erase", district.id, student, *WHO)
    assert (planned.status, planned.err) == (0, "")
    assert f"user {user_id} would be erased" in " ".join(planned.out.split())
    assert "Nothing was written. `--apply` erases for good." in planned.out
    assert query("select count(*) from ops.purges") == [(0,)]

    done = roster("erase", district.id, student, *WHO, "--apply")
    assert (done.status, done.err) == (0, "")
    said = " ".join(done.out.split())
    assert f"user {user_id} is erased" in said
    assert "Clever ids that stay away from every sync: 1." in said
    assert "Purge 1 records it." in said
    assert "Zzyzx" not in planned.out + done.out

    synced = roster("sync", district.id, "--json")
    assert (synced.status, synced.document["counts"]["findings"]) == (0, {"users.erased": 1})
    refused = roster("explain", district.id, student)
    assert refused.status == 1
    assert "(purge 1), and no sync brings it back" in refused.err
    assert roster("erase", district.id, student, *WHO, "--apply").status == 1
    assert query("select count(*) from ops.purges") == [(1,)]


def test_the_document(roster: Roster, district: District, student: str) -> None:
    """--json: the same numbers, in the dry run too."""
    planned = roster("erase", district.id, student, *WHO, "--json").document
    done = roster("erase", district.id, student, *WHO, "--json", "--apply").document
    assert (planned["erased"], planned["purge_id"], done["erased"], done["purge_id"]) == (False, None, True, 1)
    assert planned["counts"] == done["counts"]
    assert done["counts"]["app.users"] == {"removed": 1}
    assert (done["tombstones"], done["pending_holds"], done["classroom_ids"]) == (1, 0, [])


def test_several_candidates(roster: Roster, query: Query) -> None:
    """They are listed with their ids, and nobody is erased: exit status 1."""
    query("insert into app.districts (clever_id, name) values ('d1', 'Test')")
    query("insert into app.users (district_id, username, first_name, deleted_at) select 1, 'ana', 'Ana', now() from generate_series(1, 2)")
    ended = roster("erase", "d1", "ana", *WHO, "--apply")
    assert ended.status == 1
    assert "2 people fit as username" in ended.out
    assert "Nothing was erased." in ended.out
    assert len(roster("erase", "d1", "ana", *WHO, "--apply", "--json").document["matches"]) == 2
    assert roster("erase", "d1", "nobody", *WHO, "--apply").status == 1
    assert query("select count(*) from app.users") == [(2,)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["erase", "d1", "ana", "--by", "Kim"],
        ["erase", "d1", "ana", "--reason", "ticket"],
        ["erase", "d1", "ana", "--by", " ", "--reason", "ticket"],
        ["erase", "d1", "ana", "--by", "Kim", "--reason", " "],
        ["district", "offboard", "d1", "--by", "Kim"],
        ["district", "offboard", "d1", "--erase", "--by", "Kim"],
        ["district", "offboard", "d1", "--erase", "--reason", "ended"],
        ["district", "offboard", "d1", "--export", "out", "--apply", "--by", "Kim"],
        ["district", "offboard", "d1", "--export", "out", "--erase", "--by", "Kim", "--reason", "ended"],
    ],
)
def test_wrong_usage(roster: Roster, query: Query, tmp_path: Path, arguments: list[str]) -> None:
    """Exit status 2, and nothing is done."""
    query("insert into app.districts (clever_id, name, status) values ('d1', 'Test', 'paused')")
    query("insert into app.users (district_id, username) values (1, 'ana')")
    assert roster(*arguments).status == 2
    assert query("select count(*) from app.users") == [(1,)]
    assert not (tmp_path / "out").exists()


def test_the_end_of_a_contract(roster: Roster, district: District, student: str, query: Query, tmp_path: Path) -> None:
    """Export, refused while active, pause, dry run, erasure."""
    exported = roster("district", "offboard", district.id, "--export", "out", "--by", "Kim")
    assert (exported.status, exported.err) == (0, "")
    assert "with manifest.json" in " ".join(exported.out.split())
    assert student in (tmp_path / "out" / "app.users.csv").read_text()
    assert roster("district", "offboard", district.id, "--export", "out", "--by", "Kim").status == 1

    refused = roster("district", "offboard", district.id, "--erase", *WHO, "--apply")
    assert refused.status == 1
    assert f"`roster district pause {district.id}` first." in refused.err
    assert roster("district", "pause", district.id).status == 0
    planned = roster("district", "offboard", district.id, "--erase", *WHO)
    assert planned.status == 0
    assert "would be erased" in " ".join(planned.out.split())
    assert query("select count(*) > 0 from app.users") == [(True,)]
    done = roster("district", "offboard", district.id, "--erase", *WHO, "--apply", "--json").document
    assert (done["erased"], done["purge_id"]) == (True, 1)
    assert query("select count(*) from app.users") == [(0,)]
    acts = [act for (act,) in query("select act from ops.audit order by audit_id")]
    assert [act for act in acts if act in ("export", "offboard")] == ["export", "offboard"]


def test_another_sync_is_running(roster: Roster, district: District, student: str, database: Database) -> None:
    """R11.2: exit status 4. An export needs no lock."""
    roster("district", "pause", district.id)
    with database.engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        with district_lock(connection, 1, district.id):
            assert roster("erase", district.id, student, *WHO, "--apply").status == 4
            assert roster("district", "offboard", district.id, "--erase", *WHO, "--apply").status == 4
            assert roster("district", "offboard", district.id, "--export", "out", "--by", "Kim").status == 0


@pytest.mark.parametrize("command", [("erase",), ("district", "offboard")])
def test_help_shows_an_example(roster: Roster, command: tuple[str, ...]) -> None:
    said = roster(*command, "--help").out
    assert "Example" in said
    assert f"roster {' '.join(command)} 5f0000000000000000000001" in said
