"""What PostgreSQL's refusals mean: for every SQLSTATE a sentence, what to do next, and whether another attempt can help.

Belongs here: the one table of these texts, and the translation of a driver's error. Does not belong here: a session that could not be
opened (`engine.py`). No text of the driver is repeated, because it can contain row values.
"""

from collections.abc import Mapping
from typing import NamedTuple

import psycopg
import sqlalchemy.exc

from roster_pipeline.database.blockers import blockers_in_words, blockers_of
from roster_pipeline.database.offending import offending_ids
from roster_pipeline.errors import PermanentError, RosterError, TransientError


class Refusal(NamedTuple):
    """One entry of the table.

    Attributes:
        says: what is wrong, as the end of a sentence.
        do: what to do next.
        is_transient: whether another attempt can succeed without anybody changing anything.
    """

    says: str
    do: str
    is_transient: bool = False


_AGAIN = "Try again. What was not committed is rolled back."
_REPORT = "Report it as a defect, with this line."
_MIGRATE = "Run `roster migrate`."
_CONSTRAINT = (
    "If the constraint is not one of this project, the application's developers have to change it. Otherwise report it as a defect."
)
_TRIGGER = "`\\d TABLE` in psql shows the triggers of the step's table. The application's developers have to let a sync write it."
_SERVER = "The server's log says more."

# A class has two characters. A code of five characters goes before its class.
REFUSALS: Mapping[str, Refusal] = {
    "08": Refusal("the connection failed", _AGAIN, is_transient=True),
    "0A": Refusal("the server lacks a feature that is needed", "Use PostgreSQL 15 or newer, without a pooler in between."),
    "0B": Refusal("the transaction could not begin", _AGAIN, is_transient=True),
    "0P": Refusal("the role does not exist", "Correct the URL, or create the role."),
    "21": Refusal("a statement found several rows where there can be one", _REPORT),
    "22": Refusal("a value does not fit its column", f"The step names the table. {_REPORT}"),
    "23": Refusal("a row violates a constraint", _CONSTRAINT),
    "23502": Refusal(
        "a column that must have a value has none", "A column that the application has added to a table of `app` needs a default."
    ),
    "23503": Refusal("a row refers to a row that does not exist, or is referred to", _CONSTRAINT),
    "23505": Refusal("a row of the same key exists already", f"Sync again when the application writes less. {_CONSTRAINT}"),
    "23514": Refusal("a row violates a check", _CONSTRAINT),
    "23P01": Refusal("a row of the same key exists already", f"Sync again when the application writes less. {_CONSTRAINT}"),
    "20": Refusal("a function or trigger of the application refused", _TRIGGER),
    "24": Refusal("a cursor was lost", "Connect without a pooler in transaction mode."),
    "25": Refusal("the transaction is in a state that does not allow it", _REPORT),
    "25006": Refusal("the server is read-only", "It is a standby, or in the middle of a failover: try again later.", is_transient=True),
    "25P03": Refusal("the session was idle in a transaction for too long", f"Raise its time-out. {_AGAIN}", is_transient=True),
    "25P04": Refusal("the transaction took longer than the server allows", "Raise transaction_timeout.", is_transient=True),
    "26": Refusal("the session has lost its state", "Connect without a pooler in transaction mode."),
    "27": Refusal("a trigger of the application has changed the row that is written", _TRIGGER),
    "28": Refusal("the user or the password is wrong", "Check the URL and the server's pg_hba.conf."),
    "2B": Refusal("a privilege is still in use", "Grant the missing privilege to the user of ROSTER_DATABASE_URL."),
    "2D": Refusal("the transaction cannot end here", "Connect without a pooler in transaction mode."),
    "2F": Refusal("a function or trigger of the application refused", _TRIGGER),
    "34": Refusal("a cursor was lost", "Connect without a pooler in transaction mode."),
    "38": Refusal("a function or trigger of the application refused", _TRIGGER),
    "39": Refusal("a function or trigger of the application refused", _TRIGGER),
    "3B": Refusal("a savepoint was lost", "Connect without a pooler in transaction mode."),
    "3D": Refusal("the database does not exist", "Create it, or correct the URL."),
    "3F": Refusal("a schema is missing", _MIGRATE),
    "40": Refusal("the transaction could not be committed", _AGAIN, is_transient=True),
    "40001": Refusal("somebody else wrote the same rows at the same time", _AGAIN, is_transient=True),
    "40002": Refusal("a row violates a constraint", _CONSTRAINT),
    "40003": Refusal(
        "nobody knows whether the transaction was committed", "`roster status` says so. Another sync does no harm.", is_transient=True
    ),
    "40P01": Refusal("two transactions waited for each other", _AGAIN, is_transient=True),
    "42": Refusal("the tables or functions are not those of this release", f"{_MIGRATE} If that changes nothing, report it as a defect."),
    "42501": Refusal("the user lacks a privilege", "Grant the missing privilege to the user of ROSTER_DATABASE_URL."),
    "42601": Refusal("a statement is wrong", _REPORT),
    "44": Refusal("a view does not accept the row", _TRIGGER),
    "53": Refusal("the server lacks resources", f"{_SERVER} {_AGAIN}", is_transient=True),
    "53100": Refusal("the server's disk is full", "Free some space.", is_transient=True),
    "53200": Refusal("the server has no memory left", "Run fewer syncs at once, or give the server more memory.", is_transient=True),
    "53300": Refusal("the server has no free connection", "Raise max_connections, or run fewer syncs at once.", is_transient=True),
    "54": Refusal("a limit of the server is reached", f"{_SERVER} {_REPORT}"),
    "55": Refusal("an object is in a state that does not allow it", _SERVER),
    "55006": Refusal("an object is in use", _AGAIN, is_transient=True),
    # With the sessions that may be in the way (`blockers.py`).
    "55P03": Refusal("another session holds a lock for too long", "Try again when it has ended.", is_transient=True),
    "57": Refusal("the server ended the statement", _AGAIN, is_transient=True),
    "57014": Refusal("the statement was cancelled, by a time-out of the server or by somebody", _AGAIN, is_transient=True),
    "57P04": Refusal("the database was dropped", "Create it, or correct the URL."),
    "58": Refusal("the server's operating system failed", f"{_SERVER} {_AGAIN}", is_transient=True),
    "72": Refusal("the snapshot is too old", _AGAIN, is_transient=True),
    "F0": Refusal("the server's configuration is wrong", _SERVER),
    "HV": Refusal("a foreign table failed", _SERVER),
    "P0": Refusal("a function or trigger of the application refused", _TRIGGER),
    "XX": Refusal("the server has an internal error", _SERVER),
    "XX001": Refusal("the server's data is damaged", "Stop all syncs, and restore a backup or call your database administrator."),
    "XX002": Refusal("an index of the server is damaged", "Stop all syncs, and call your database administrator (`reindex`)."),
}
_UNKNOWN = Refusal("a reason that this project does not know", _REPORT)
_DISK_QUOTA = Refusal("its disk quota, or its limit for a file, is used up", "Free some space.", is_transient=True)
# PostgreSQL's functions that enlarge a table or a temporary file. It reports a full disk as 53100, but a used-up quota as internal error.
_GROWS_A_FILE = {"mdextend", "mdzeroextend", "BufFileDumpBuffer"}

# The classes of errors about the values of one row.
_ABOUT_ROWS = {"22", "23"}
# What a note of an error is about.
_STEP, _RECORD = "step ", "record "


def refusal(state: str) -> Refusal:
    """The entry of an SQLSTATE."""
    return REFUSALS.get(state) or REFUSALS.get(state[:2]) or _UNKNOWN


def name_step(error: Exception, step: str) -> None:
    """Let the error say in which step it was raised. The innermost step counts."""
    driver = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    if isinstance(driver, psycopg.Error) and _noted(driver, _STEP) is None:
        driver.add_note(_STEP + step)


def name_record(error: psycopg.Error, clever_id: str) -> None:
    """Let the error say which record of Clever the server refused."""
    error.add_note(_RECORD + clever_id)


def _noted(error: psycopg.Error, kind: str) -> str | None:
    return next((note.removeprefix(kind) for note in getattr(error, "__notes__", ()) if note.startswith(kind)), None)


def translated(error: BaseException | None) -> RosterError:
    """A driver's error as one of ours: the sentence, SQLSTATE, table, column, constraint, ids and step, and what to do next."""
    if not isinstance(error, psycopg.Error):
        return PermanentError(f"The database driver failed: {type(error).__name__}.", hint=_REPORT)
    step = _noted(error, _STEP)
    if error.sqlstate is None:  # The error is not from the server.
        if isinstance(error, psycopg.OperationalError):
            return TransientError("The connection to the database was lost.", hint=_AGAIN)
        return PermanentError(f"The database driver failed: {type(error).__name__}{f' (step {step})' if step else ''}.", hint=_REPORT)
    grows = error.sqlstate == "XX000" and error.diag.source_function in _GROWS_A_FILE
    found = _DISK_QUOTA if grows else refusal(error.sqlstate)
    names = {
        "SQLSTATE": error.sqlstate,
        "table": ".".join(part for part in (error.diag.schema_name, error.diag.table_name) if part),
        "column": error.diag.column_name,
        "constraint": error.diag.constraint_name,
        **(offending_ids(error) if error.sqlstate[:2] in _ABOUT_ROWS else {}),
        "record": _noted(error, _RECORD),
        "step": step,
    }
    where = ", ".join(f"{what} {name}" for what, name in names.items() if name)
    kind = TransientError if found.is_transient else PermanentError
    hint = f"{blockers_in_words(blockers_of(error))} {found.do}".strip() if error.sqlstate == "55P03" else found.do
    return kind(f"The database refused: {found.says} ({where}).", hint=hint)
