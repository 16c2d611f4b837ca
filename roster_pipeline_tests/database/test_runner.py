"""What a step measures, and how a statement is prepared before it runs."""

import pickle
import subprocess
import sys

import sqlalchemy as sa

from roster_pipeline.database.runner import Step, localize, slowest
from roster_pipeline.process_memory import peak_mb

# 64 MB of text are 64 MB resident, and are returned to the system at once.
PROGRAM = """
from roster_pipeline.database.runner import Step
from roster_pipeline.process_memory import peak_mb
before = peak_mb()
(b"x" * (64 << 20)).count(b"y")
print(before, Step("a", 0, 0.0).peak_mb, peak_mb())
"""


def test_the_peak_is_that_of_the_process_and_never_falls() -> None:
    """It does not include the memory of the process that started it, even if that is larger."""
    large = b"x" * (300 << 20)
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    before, recorded, after = (int(each) for each in ended.stdout.split())
    assert peak_mb() >= len(large) >> 20
    assert 10 < before < 200
    assert before + 60 <= recorded <= before + 80
    assert recorded == after


def test_a_step_can_be_pickled() -> None:
    """The processes of a shard (`fleet/children.py`) send their steps, with their own memory."""
    step = Step("clever.students", 3, 0.5, peak_mb=7)
    assert pickle.loads(pickle.dumps(step)) == step  # noqa: S301  (our own)


def test_the_slowest_steps_come_first() -> None:
    steps = [Step("a", 0, 0.1), Step("b", 0, 3.0), Step("c", 0, 0.2), Step("d", 0, 1.26)]
    assert slowest(steps) == "b 3.0 s, d 1.3 s, c 0.2 s"


def test_a_statement_reads_temporary_tables_by_the_same_alias_and_without_comments() -> None:
    """A colon in a comment is not a parameter, and the alias of `staging.users` is still users."""
    sql = "-- one: two\nselect users.id, s.x from staging.users inner join reconcile.schools as s on app.f(:district_id)\n"
    assert localize(sql) == (
        'select users.id, s.x from pg_temp."staging.users" as users inner join pg_temp."reconcile.schools" as s on app.f(:district_id)\n'
    )


def test_a_comment_after_code_is_not_a_parameter() -> None:
    """Two hyphens in a string or in a quoted name do not begin a comment. An apostrophe in a comment does not begin a string."""
    sql = """
        select -- the person's :own
            cast(:one as text)::text as a, -- :two
            'x -- y' as b, 'it''s -- so' as c, "d -- e", -- don't :three
            /* :four
               -- :five */ f
        -- :six
        from t
    """
    code = localize(sql)
    assert set(sa.text(code).compile().params) == {"one"}
    assert " ".join(code.split()) == ("""select cast(:one as text)::text as a, 'x -- y' as b, 'it''s -- so' as c, "d -- e", f from t""")
