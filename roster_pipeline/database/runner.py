"""Runs the SQL models of one sync on one session, in one transaction.

Belongs here: how a model becomes a table, how a table that outlives the sync is brought in line with it, how an act or an audit is run.
Does not belong here: which models exist and their order (`models.py`), and whether anything may be written (`sync/`).

Inside a sync every `clever.*`, `staging.*` and `reconcile.*` name is a temporary table of this district alone: it has exact statistics, no
other district's rows, and vanishes with the session. The tables of those names that outlive the sync are brought in line at the end
(`persist`).
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from roster_pipeline.database.models import Model
from roster_pipeline.process_memory import peak_mb

T = TypeVar("T")

# Tables that every sync has of its own.
_RUN_LOCAL = r"(?:clever|staging|reconcile)\.\w+"

# A string or a quoted name, which may hold two hyphens; or a comment, with its line where nothing else is on it.
_TEXT_OR_COMMENT = re.compile(
    r"""(?P<text>'(?:[^']|'')*'|"[^"]*") | ^[ \t]*--[^\n]*\n | [ \t]*--[^\n]* | /\*.*?\*/""", re.MULTILINE | re.DOTALL | re.VERBOSE
)


@dataclass(frozen=True)
class Step:
    """One collection pulled or one model run, noted when it has ended.

    Attributes:
        rows: the rows it pulled, made, wrote or returned.
        peak_mb: of the process, up to this step's end. It never falls; a step that raised it needed more than any before.
    """

    name: str
    rows: int
    seconds: float
    peak_mb: int = field(default_factory=peak_mb)


def timed(name: str, on_step: Callable[[Step], None], work: Callable[[], T]) -> T:
    """Do something that is a step. Where it returns a number, that is its rows."""
    result, step = _measured(name, work)
    on_step(step)
    return result


def _measured(name: str, work: Callable[[], T]) -> tuple[T, Step]:
    start = time.perf_counter()
    result = work()
    return result, Step(name, result if isinstance(result, int) else 0, time.perf_counter() - start)


def slowest(steps: Iterable[Step]) -> str:
    """The three steps to look at first, with their seconds."""
    return ", ".join(f"{step.name} {step.seconds:.1f} s" for step in sorted(steps, key=lambda step: -step.seconds)[:3])


def local_name(name: str) -> str:
    """`staging.users` -> the quoted name of this sync's temporary table of it."""
    return f'pg_temp."{name}"'


def localize(sql: str, more: Iterable[str] = ()) -> str:
    """The statement with every run-local table under its temporary name, but still called by its own.

    Comments are removed: a colon in a comment is not a parameter.

    Args:
        more: lasting tables that this run has a temporary table of as well.
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
    """The affected subset of a district, which is planned as if it were the whole district. By default there is none: nothing is left out.

    Attributes:
        tables: tables of `app` whose rows of the subset are in temporary tables of the same names.
        read_in_full: models that read all rows of these tables.
        kept: lasting tables of which only some rows are brought in line -> the temporary table with the Clever ids of those rows.
    """

    tables: tuple[str, ...] = ()
    read_in_full: frozenset[str] = frozenset()
    kept: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelRunner:
    """Runs models on one connection, inside the transaction that the caller holds.

    Args:
        connection: the sync's session.
        parameters: what the models may name as `:parameter`.
        tables: tables that outlive the sync, `schema.table` -> columns.
        subset: what is planned; by default the whole district.
    """

    connection: Connection
    parameters: Mapping[str, Any]
    tables: Mapping[str, tuple[str, ...]]
    subset: Subset = Subset()

    def build(self, model: Model) -> Step:
        """Make this sync's table of a staging or reconcile model."""
        return _measured(model.name, lambda: self._build(model))[1]

    def act(self, model: Model) -> Step:
        """Run a writing statement; the rows are those of its history (one per row written)."""
        return _measured(model.name, lambda: self._execute(localize(model.sql)))[1]

    def audit(self, model: Model) -> Step:
        """Count the records an audit returns."""
        counting = f"select count(*) from ({self._reading(model)}) as offending"  # noqa: S608
        return _measured(model.name, lambda: self._count(counting))[1]

    def persist(self, model: Model) -> list[Step]:
        """Bring a model's lasting table, where it has one, in line with this sync's. The rows are those written: those that differ."""
        return [_measured(f"keep {model.name}", lambda: self._mirror(model))[1]] if model.name in self.tables else []

    def _reading(self, model: Model) -> str:
        return localize(model.sql, () if model.name in self.subset.read_in_full else self.subset.tables)

    def _execute(self, sql: str) -> int:
        return self.connection.execute(sa.text(sql), self.parameters).rowcount

    def _count(self, sql: str) -> int:
        return int(self.connection.execute(sa.text(sql), self.parameters).scalar_one())

    def _build(self, model: Model) -> int:
        rows = self._execute(f'create temporary table "{model.name}" on commit drop as\n{self._reading(model)}')
        # Nothing else ever analyses a temporary table, and without statistics the planner nests loops over people.
        self.connection.exec_driver_sql(f"analyze {local_name(model.name)}")
        return rows

    def _mirror(self, model: Model) -> int:
        columns = self.tables[model.name]
        lasting = sa.table(model.table, *(sa.column(each) for each in columns), schema=model.layer)
        wanted = sa.table(model.name, *(sa.column(each) for each in columns), schema="pg_temp")
        same_row = sa.and_(*(lasting.c[each] == wanted.c[each] for each in model.key))
        ours = sa.and_(lasting.c.district_id == self.parameters["district_id"], self._is_kept(model, lasting))
        payload = [each for each in columns if each not in model.key]
        written = self.connection.execute(sa.delete(lasting).where(ours, ~sa.exists().where(same_row))).rowcount
        if payload:
            differs = sa.or_(*(lasting.c[each].is_distinct_from(wanted.c[each]) for each in payload))
            changes = {each: wanted.c[each] for each in payload}
            written += self.connection.execute(sa.update(lasting).where(ours, same_row, differs).values(changes)).rowcount
        missing = sa.select(*(wanted.c[each] for each in columns)).where(~sa.exists().where(same_row, ours), self._is_kept(model, wanted))
        adding = sa.insert(lasting).from_select(list(columns), missing).execution_options(preserve_rowcount=True)
        return written + self.connection.execute(adding).rowcount

    def _is_kept(self, model: Model, table: sa.TableClause) -> sa.ColumnElement[bool]:
        if model.name not in self.subset.kept:
            return sa.true()
        ids = sa.table(self.subset.kept[model.name], sa.column("clever_id"), schema="pg_temp")
        return table.c.clever_id.in_(sa.select(ids.c.clever_id))
