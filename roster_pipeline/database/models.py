"""The SQL models of `dbt_like_sql/`: the header of each file, the tables that it reads and writes, and the run order.

Belongs here: reading and parsing the files. The asset graph, the run order and the docs all come from here; there is no second list. Does
not belong here: running them (`runner.py`) and what they decide (the files themselves).

A folder is a schema. `staging/` and `reconcile/` have one SELECT per table, `app/` and `ops/` one statement per table that is written, and
`audits/` one query per rule that returns the offending records. `clever.*` has the pages of the current pull.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Literal

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from roster_pipeline.database.reach import REACHES, DecidesBy, required_reach
from roster_pipeline.errors import PermanentError

Layer = Literal["clever", "staging", "reconcile", "app", "ops", "audits"]
LAYERS: tuple[Layer, ...] = ("clever", "staging", "reconcile", "app", "ops", "audits")

# The project runs from its checkout: the folder is next to the package.
SQL = Path(__file__).resolve().parents[2] / "dbt_like_sql"

_FIELD = re.compile(r"^-- (grain|key|rules|decides by|severity): (.+)$", re.MULTILINE)
# The layers that decide something. Their headers say how far they look.
_DECIDING: frozenset[Layer] = frozenset({"reconcile", "audits"})


@dataclass(frozen=True)
class Model:
    """One SQL file.

    Attributes:
        layer: the folder.
        table: the stem of the file name: the table that it makes or writes, or the name of the audit.
        sql: the text of the file, with parameters as `:name`.
        description: its comments that start a line, without the fields of the header.
        grain: what one row is.
        rules: the SPEC rules that it implements.
        key: the columns that identify a row, if the table outlives the sync.
        severity: of an audit.
        decides_by: how far a model of `reconcile/` or `audits/` looks (`reach.py` has the values); None in other layers.
        reads: `schema.table` names it selects from.
        writes: `schema.table` names it inserts into or updates.
    """

    layer: Layer
    table: str
    sql: str
    description: str
    grain: str
    rules: tuple[str, ...]
    key: tuple[str, ...]
    severity: Literal["warn", "error"]
    decides_by: DecidesBy | None
    reads: frozenset[str]
    writes: frozenset[str]

    @property
    def name(self) -> str:
        """`schema.table`."""
        return f"{self.layer}.{self.table}"


@dataclass(frozen=True)
class Models:
    """Every model, ordered so that each runs after the models that it reads.

    Attributes:
        decided: tables that Python makes during the run -> the models from which it decides them.
    """

    ordered: tuple[Model, ...]
    decided: Mapping[str, tuple[str, ...]]

    def __iter__(self) -> Iterator[Model]:
        return iter(self.ordered)

    def of(self, *layers: Layer) -> tuple[Model, ...]:
        """The models of some layers, in run order."""
        return tuple(model for model in self.ordered if model.layer in layers)

    @cached_property
    def by_name(self) -> Mapping[str, Model]:
        """`schema.table` -> model."""
        return {model.name: model for model in self.ordered}

    def upstream(self, model: Model) -> frozenset[str]:
        """The tables from which data flows into `model`. Tables of a later layer do not count: it reads them before this sync writes."""
        reads = frozenset(source for read in model.reads for source in self.decided.get(read, (read,)))
        return frozenset(read for read in reads if read != model.name and _layer_index(read) <= LAYERS.index(model.layer))


def _layer_index(name: str) -> int:
    schema = name.split(".")[0]
    return LAYERS.index(schema) if schema in LAYERS else -1


def load_models(
    tables: Mapping[str, Iterable[str]],
    foreign_keys: Mapping[str, frozenset[str]],
    resources: Iterable[str],
    decided: Mapping[str, tuple[str, ...]],
    root: Path = SQL,
) -> Models:
    """Read, parse and order every file of `dbt_like_sql/`.

    Args:
        tables: the tables that the migrations make, `schema.table` -> columns.
        foreign_keys: `schema.table` -> the tables to which its rows refer; they are written before it.
        resources: the tables of the `clever` layer, which the pull fills.
        decided: tables that Python makes between models -> the models from which it decides them.
        root: the folder; by default that of the project.

    Raises:
        PermanentError: a file is not a single statement, its header is not complete, it looks further than its header says, or an audit
            returns other columns; no model or migration makes a table; or models read each other in a circle.
    """
    models = [
        _parse(layer, path.name.removesuffix(".sql"), path.read_text(encoding="utf-8"))
        for layer in LAYERS
        if layer != "clever"
        for path in sorted((root / layer).iterdir(), key=lambda each: each.name)
        if path.name.endswith(".sql")
    ]
    by_name = {model.name: model for model in models}
    known = {*tables, *by_name, *decided, *(f"clever.{resource}" for resource in resources)}
    for model in models:
        if missing := sorted((model.reads | model.writes) - known):
            raise PermanentError(
                f"dbt_like_sql/{model.layer}/{model.table}.sql names {', '.join(missing)}, which no model and no migration makes.",
                hint="Correct the name, or add the model or the migration that makes the table.",
            )
    unordered = Models(tuple(models), decided)
    graph = {model.name: {each for each in unordered.upstream(model) if each in by_name} for model in models}
    for model in models:
        if model.layer == "app":
            graph[model.name] |= {each for each in foreign_keys.get(model.name, frozenset()) if each in by_name}
    try:
        order = tuple(TopologicalSorter({name: sorted(graph[name]) for name in sorted(graph)}).static_order())
    except CycleError as error:
        raise PermanentError(f"The SQL models read each other in a circle: {' -> '.join(error.args[1])}.") from None
    return Models(tuple(sorted((by_name[name] for name in order), key=lambda each: LAYERS.index(each.layer))), decided)


def _parse(layer: Layer, table: str, sql: str) -> Model:
    where = f"dbt_like_sql/{layer}/{table}.sql"
    try:
        statements = sqlglot.parse(sql, dialect="postgres")
    except SqlglotError as error:
        raise PermanentError(f"{where} cannot be parsed: {error}") from None
    if len(statements) != 1 or statements[0] is None:
        raise PermanentError(f"{where} holds {len(statements)} statements; one file is one statement.")
    tree = statements[0]
    fields = _header_fields(where, sql)
    comment = [line.removeprefix("-- ") for line in sql.splitlines() if line.startswith("--")]
    writes = frozenset(_table_name(each.find(exp.Table)) for each in tree.find_all(exp.Insert, exp.Update))
    named = frozenset(_table_name(each) for each in tree.find_all(exp.Table) if each.db)
    return Model(
        layer=layer,
        table=table,
        sql=sql,
        description=" ".join(line for line in comment if not _FIELD.match(f"-- {line}")),
        grain=fields["grain"],
        rules=tuple(fields["rules"].split(", ")),
        key=tuple(fields["key"].split(", ")) if "key" in fields else (),
        decides_by=_decides_by(where, tree, fields) if layer in _DECIDING else None,
        severity=_audit_severity(where, tree, fields) if layer == "audits" else "warn",
        reads=named - writes,
        writes=writes,
    )


def _header_fields(where: str, sql: str) -> dict[str, str]:
    """The fields of the header. A header has a description before them, and at least the grain and the rules."""
    header = [line for line in sql.split("\n\n")[0].splitlines() if line.startswith("--")]
    fields = dict(_FIELD.findall("\n".join(header)))
    if missing := [name for name in ("grain", "rules") if name not in fields]:
        raise PermanentError(f"{where} does not say its {' and '.join(missing)}.", hint="Every model opens with its grain and its rules.")
    if _FIELD.match(header[0]):
        raise PermanentError(f"{where} has no description.", hint="Begin the file with a comment: what the rows are, in a sentence.")
    return fields


def _audit_severity(where: str, tree: exp.Expr, fields: Mapping[str, str]) -> Literal["warn", "error"]:
    """The severity of an audit. An audit also has to return what identifies a record."""
    columns = tree.named_selects if isinstance(tree, exp.Query) else []
    if columns != ["resource", "clever_id"]:
        raise PermanentError(
            f"{where} returns {', '.join(columns) or 'nothing'}; an audit returns resource and clever_id.",
            hint="Select 'users' as resource, clever_id: one row per offending record.",
        )
    severity = fields.get("severity")
    if severity == "warn":
        return "warn"
    if severity == "error":
        return "error"
    if severity is None:
        raise PermanentError(f"{where} does not say its severity.", hint="Add the header line `-- severity: warn` or `-- severity: error`.")
    raise PermanentError(f"{where} has the severity {severity!r}; it is warn or error.")


def _decides_by(where: str, tree: exp.Expr, fields: Mapping[str, str]) -> DecidesBy:
    """How far a model looks, as its header says. The header may say more than the SQL needs, never less."""
    values = " | ".join(REACHES)
    said = fields.get("decides by")
    if said is None:
        raise PermanentError(f"{where} does not say what it decides by.", hint=f"Add the header line `-- decides by: {values}`.")
    decides_by = next((each for each in REACHES if each == said), None)
    if decides_by is None:
        raise PermanentError(f"{where} decides by {said!r}, which is not one of {values}.")
    if decides_by in ("school", "district"):
        return decides_by
    needed, place = required_reach(tree)
    if REACHES.index(needed) > REACHES.index(decides_by):
        raise PermanentError(
            f"{where} says that it decides by {decides_by}, but it {place}: it decides by {needed}.",
            hint=f"Write `-- decides by: {needed}`, or let it look at fewer records; roster_pipeline/database/reach.py has the values.",
        )
    return decides_by


def _table_name(table: exp.Table | None) -> str:
    return f"{table.db}.{table.name}" if table is not None else ""
