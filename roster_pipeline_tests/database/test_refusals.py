"""What PostgreSQL's refusals mean: every SQLSTATE has a sentence, a cause and a next step."""

import psycopg
import pytest
from sqlalchemy import text

from roster_pipeline.database.engine import Database, psycopg_connection, translate_database_errors
from roster_pipeline.database.refusals import REFUSALS, refusal
from roster_pipeline.database.runner import timed
from roster_pipeline.errors import PermanentError, RosterError, TransientError

# Every SQLSTATE that the driver knows, by the name of its error.
STATES = {name: state for name, error in vars(psycopg.errors).items() if isinstance(state := getattr(error, "sqlstate", None), str)}
# Classes of states that no statement of this project, and no trigger that it can reach, ends with.
ELSEWHERE = {
    "02": "no data, which is no error in SQL",
    "03": "an asynchronous statement of embedded SQL",
    "09": "a triggered action of the standard, which PostgreSQL does not raise",
    "0F": "a large object",
    "0L": "a grantor of the standard",
    "0Z": "diagnostics inside PL/pgSQL",
    "10": "XQuery",
}


def test_every_state_has_an_entry() -> None:
    """Also those of a later PostgreSQL, by their class."""
    missing = {name: state for name, state in STATES.items() if {state, state[:2]}.isdisjoint(REFUSALS) and state[:2] not in ELSEWHERE}
    assert len(STATES) > 200
    assert missing == {}


def test_every_entry_is_a_sentence_and_says_what_to_do() -> None:
    assert [key for key, entry in REFUSALS.items() if entry.says[0].isupper() or entry.says.endswith(".")] == []
    assert [key for key, entry in REFUSALS.items() if not entry.do.endswith((".", ")"))] == []
    assert {key[:2] for key in REFUSALS} <= {state[:2] for state in STATES.values()}


@pytest.mark.parametrize("key", REFUSALS)
def test_the_server_raises_it(empty_database: Database, key: str) -> None:
    """Every entry, raised by a real server inside a step: the message has the sentence, the code and the step; never the driver's text."""
    state = key.ljust(5, "0")
    raising = f"do $$ begin raise exception 'Zebulon-Marker' using errcode = '{state}'; end $$"
    with pytest.raises(RosterError) as caught, translate_database_errors(), empty_database.engine.connect() as connection:
        timed("outer", print, lambda: timed("app.users", print, lambda: connection.execute(text(raising))))
    entry = refusal(state)
    assert type(caught.value) is (TransientError if entry.is_transient else PermanentError)
    assert caught.value.reason == f"The database refused: {entry.says} (SQLSTATE {state}, step app.users)."
    assert caught.value.hint == entry.do


def test_a_step_of_the_driver_is_named_too(empty_database: Database) -> None:
    """The landing and other steps use the driver's own connection."""
    with pytest.raises(PermanentError) as caught, translate_database_errors(), empty_database.engine.connect() as connection:
        timed("clever.users", print, lambda: psycopg_connection(connection).execute("select 'x'::int"))
    assert caught.value.reason.endswith("(SQLSTATE 22P02, step clever.users).")
