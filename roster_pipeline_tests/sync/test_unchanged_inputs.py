"""The recorded state of an unchanged district covers everything that a plan is made from.

Does not belong here: that a change is noticed in a real district (`test_unchanged.py`).
"""

import re
from pathlib import Path

import pytest
import sqlglot
from sqlglot import exp

from roster_pipeline.sync import unchanged
from roster_pipeline.sync.brakes import DECIDED
from roster_pipeline.sync.run import project_models

# Permanent tables that a plan reads and `unchanged.sql` does not.
READ_SEPARATELY = {"ops.holds"}  # a district with a pending hold never counts as unchanged, and a plan reads no other holds

# The parameters of models, and why the recorded state covers each of them.
PARAMETERS = {
    "district_id": "it selects the row of ops.settled",
    "student_multi_school": "from the row of app.districts, and from profiles.py, which is in the hash of the code",
    "student_email": "as above",
    "login_methods": "as above",
    "keep_classroom_names": "as above",
    "is_rekeyed": "as above",
    **dict.fromkeys(("user_ids", "school_ids", "classroom_ids"), "only ids of new rows, and no row is new"),
    "is_first": "a first sync records no state",
    "is_additions_only": "a state in which a window has deferred something is none outside of one",
    "is_rollover": "only in a plan with a soft delete, and there is none",
    "synced_at": "only in rows that are written, and no row is written; and whether a term has ended matters only for a soft delete",
}


def covered() -> set[str]:
    """The permanent tables whose row versions `unchanged.sql` reads."""
    tree = sqlglot.parse_one(str(unchanged._STATE), dialect="postgres")
    return {f"{each.db}.{each.name}" for each in tree.find_all(exp.Table) if each.db}


def test_the_fingerprint_covers_every_table_that_a_plan_is_made_from() -> None:
    """If a model reads another permanent table, add it to unchanged.sql, or above with a reason."""
    deciding = project_models().of("staging", "reconcile", "audits")
    # Temporary tables of this sync: `runner.localize` replaces these names.
    made = {f"clever.{each}" for each in ("schools", "terms", "courses", "sections", "users", "districts", "findings")}
    made |= {model.name for model in deciding} | set(DECIDED)
    permanent = {table for model in deciding for table in model.reads} - made
    assert permanent - covered() - READ_SEPARATELY == set()
    assert covered() - permanent == set()


def test_a_plan_depends_on_nothing_else() -> None:
    """Not on other parameters, not on the time, and not on random numbers."""
    named: set[str] = set()
    for model in project_models().of("staging", "reconcile", "audits"):
        code = re.sub(r"--.*", "", model.sql)
        named |= set(re.findall(r"(?<!:):(\w+)", code))
        assert not re.search(r"\b(now|random|clock_timestamp|statement_timestamp|gen_random_uuid|current_\w+|localtime\w*)\b", code), (
            model.name
        )
    assert named == PARAMETERS.keys()


def test_a_release_is_every_file_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python, the models, unchanged.sql, and the migrations, which define SQL functions: a change of any rule is noticed."""

    def digest_with(changed: str | None) -> str:
        monkeypatch.setattr(Path, "read_bytes", lambda path: b"new" if path.name == changed else path.name.encode())
        return unchanged.code_digest.__wrapped__()

    assert len({digest_with(each) for each in (None, "brakes.py", "people.sql", "unchanged.sql", "0001_foundation.sql")}) == 5
