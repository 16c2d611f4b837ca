"""Reading the settings and opening the application's database, as most commands do first.

Does not belong here: the settings themselves (`settings.py`), and how a database is opened (`database/engine.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from roster_pipeline.database.engine import Database, open_database
from roster_pipeline.database.migrate import require_current_schema
from roster_pipeline.errors import PermanentError
from roster_pipeline.settings import Settings, read_environment


def read_settings() -> Settings:
    """The settings, from the environment and the file of ROSTER_ENV_FILE.

    Raises:
        PermanentError: the value of a variable is not valid, or the file cannot be used. The message names the variable, never its value.
    """
    try:
        return read_environment()
    except ValidationError as error:
        invalid = "; ".join(f"{'.'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors(include_input=False))
        raise PermanentError(f"The environment is not valid. {invalid}.", hint="`.env.example` lists every variable.") from None


@contextmanager
def current_database() -> Iterator[Database]:
    """Opens the application's database and checks that its schema is this release's.

    Raises:
        RosterError: see `open_database` and `require_current_schema`.
    """
    with open_database(read_settings()) as database:
        require_current_schema(database)
        yield database
