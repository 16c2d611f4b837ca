"""Runs the SQL models of one sync on one session, in one transaction.

Belongs here: making a table from a model, updating the lasting table of that name to match it, and running statements and audits. Does
not belong here: which models exist and their order (`models.py`), and whether anything may be written (`sync/`).

Inside a sync every `clever.*`, `staging.*` and `reconcile.*` name is a temporary table of this district alone: it has exact statistics and
no rows of other districts, and it is dropped at the end. Lasting tables of those names are updated at the end of the sync (`persist`).
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.models import Model
from roster_pipeline.database.refusals import name_step
from roster_pipeline.process_memory import peak_mb

T = TypeVar("T")

# Where the audits of a run put what they return: rule, resource and clever_id of each offending record.
FOUND = 'pg_temp."reconcile.findings"'

# Tables of which every sync has its own.
_RUN_LOCAL = r"(?:clever|staging|reconcile)\.\w+"

# A string or a quoted name, which can contain two hyphens; or a comment, with the whole line if there is nothing else on it.
_TEXT_OR_COMMENT = re.compile(
    r"""(?P<text>'(?:[^']|'')*'|"[^"]*") | ^[ \t]*--[^\n]*\n | [ \t]*--[^\n]* | /\*.*?\*/""", re.MULTILINE | re.DOTALL | re.VERBOSE
)


@dataclass(frozen=True)
class Step:
    """One collection that was pulled, or one model that was run; created when it has ended.

    Attributes:
        rows: the number of rows that it pulled, made, wrote or returned.
        peak_mb: peak memory of the process up to the end of this step. It never falls. If it rises, this step needed more than any before.
    """

    name: str
    rows: int
    seconds: float
    peak_mb: int = field(default_factory=peak_mb)


def timed(name: str, on_step: Callable[[Step], None], work: Callable[[], T]) -> T:
    """Do the work of a step and report it. If the work returns a number, that is the number of rows."""
    result, step = _measured(name, work)
    on_step(step)
    return result


def _measured(name: str, work: Callable[[], T]) -> tuple[T, Step]:
    start = time.perf_counter()
    try:
        result = work()
    except (sa.exc.DBAPIError, psycopg.Error) as error:
        name_step(error, name)
        raise
    return result, Step(name, result if isinstance(result, int) else 0, time.perf_counter() - start)


def slowest(steps: Iterable[Step]) -> str:
    """The three slowest steps, with their seconds."""
    return ", ".join(f"{step.name} {step.seconds:.1f} s" for step in sorted(steps, key=lambda step: -step.seconds)[:3])


def local_name(name: str) -> str:
    """`staging.users` -> the quoted name of its temporary table in this sync."""
    return f'pg_temp."{name}"'


def localize(sql: str, more: Iterable[str] = ()) -> str:
    """Replace every run-local table by its temporary table, under an alias, so that columns are still qualified as before.

    Comments are removed: a colon in a comment is not a parameter.

    Args:
        more: lasting tables of which this run has a temporary table as well.
    """
    code = _TEXT_OR_COMMENT.sub(lambda match: match["text"] or "", sql)
    names = "|".join([_RUN_LOCAL, *map(re.escape, more)])
    return re.sub(
        rf"(?<![\w.\"])({names})\b(\s+as\b)?",
        lambda match: f"{local_name(match[1])} as" + ("" if match[2] else f" {match[1].split('.')[1]}"),
        code,
    )


@dataclass(frozen=True)
class Subset:
    """The affected subset of a district, which is planned as if it were the whole district. By default nothing is left out.

    Attributes:
        tables: tables of `app` of which temporary tables of the same name have the rows of the subset.
        read_in_full: models that read all rows of these tables.
        kept: lasting tables of which only some rows are updated -> the temporary table with the Clever ids of those rows.
    """

    tables: tuple[str, ...] = ()
    read_in_full: frozenset[str] = frozenset()
    kept: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelRunner:
    """Runs models on one connection, inside the transaction that the caller holds.

    Args:
        connection: the session of the sync.
        parameters: the values of the `:parameter` names in models.
        tables: tables that outlive the sync, `schema.table` -> columns.
        subset: the people and sections that are planned; by default the whole district.
    """

    connection: Connection
    parameters: Mapping[str, Any]
    tables: Mapping[str, tuple[str, ...]]
    subset: Subset = Subset()

    def build(self, model: Model) -> Step:
        """Make the temporary table of a staging or reconcile model."""
        return _measured(model.name, lambda: self._build(model))[1]

    def rebuild(self, model: Model) -> Step:
        """Make the temporary table again, because a table that the model reads has changed."""
        self.connection.exec_driver_sql(f"drop table {local_name(model.name)}")
        return self.build(model)

    def act(self, model: Model) -> Step:
        """Run a statement of `app` or `ops`. Its rows are those of the history: one per row that it writes."""
        return _measured(model.name, lambda: self._execute(localize(model.sql)))[1]

    def audit(self, model: Model) -> Step:
        """Add the records that an audit returns to the table FOUND, which exists."""
        adding = f"""
            insert into {FOUND} (rule, resource, clever_id)
            select '{model.table}', resource, clever_id from ({self._reading(model)}) as offending
        """  # noqa: S608  (our own names)
        return _measured(model.name, lambda: self._execute(adding))[1]

    def persist(self, model: Model) -> list[Step]:
        """Update the lasting table of a model, if it has one, to match this sync's table. Only rows that differ are written and counted."""
        return [_measured(f"keep {model.name}", lambda: self._mirror(model))[1]] if model.name in self.tables else []

    def _reading(self, model: Model) -> str:
        return localize(model.sql, () if model.name in self.subset.read_in_full else self.subset.tables)

    def _execute(self, sql: str) -> int:
        return self.connection.execute(sa.text(sql), self.parameters).rowcount

    def _build(self, model: Model) -> int:
        rows = self._execute(f'create temporary table "{model.name}" on commit drop as\n{self._reading(model)}')
        # Autovacuum does not analyze temporary tables, and without statistics the planner uses nested loops over people.
        self.connection.exec_driver_sql(f"analyze {local_name(model.name)}")
        return rows

    def _mirror(self, model: Model) -> int:
        columns = self.tables[model.name]
        lasting = sa.table(model.table, *(sa.column(each) for each in columns), schema=model.layer)
        desired = sa.table(model.name, *(sa.column(each) for each in columns), schema="pg_temp")
        same_row = sa.and_(*(lasting.c[each] == desired.c[each] for each in model.key))
        ours = sa.and_(lasting.c.district_id == self.parameters["district_id"], self._is_in_scope(model, lasting))
        payload = [each for each in columns if each not in model.key]
        written = self.connection.execute(sa.delete(lasting).where(ours, ~sa.exists().where(same_row))).rowcount
        if payload:
            differs = sa.or_(*(lasting.c[each].is_distinct_from(desired.c[each]) for each in payload))
            changes = {each: desired.c[each] for each in payload}
            written += self.connection.execute(sa.update(lasting).where(ours, same_row, differs).values(changes)).rowcount
        missing = sa.select(*(desired.c[each] for each in columns)).where(
            ~sa.exists().where(same_row, ours), self._is_in_scope(model, desired)
        )
        adding = sa.insert(lasting).from_select(list(columns), missing).execution_options(preserve_rowcount=True)
        return written + self.connection.execute(adding).rowcount

    def _is_in_scope(self, model: Model, table: sa.TableClause) -> sa.ColumnElement[bool]:
        if model.name not in self.subset.kept:
            return sa.true()
        ids = sa.table(self.subset.kept[model.name], sa.column("clever_id"), schema="pg_temp")
        return table.c.clever_id.in_(sa.select(ids.c.clever_id))
