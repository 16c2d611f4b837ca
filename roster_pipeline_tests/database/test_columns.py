"""Several lists in the SQL models have the columns of each table of `app`. These tests read every list from the SQL, and compare it with
the table that the migrations create (R7.2, R11.5). They fail if a new column is missing in a list, and if a list has another order.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

import pytest
import sqlglot
from sqlglot import exp

from roster_pipeline.database.migrate import known_tables
from roster_pipeline.database.models import SQL

# The files with lists of each table's columns: the desired row, its difference from the present one, and the write.
FILES = {
    "schools": ("reconcile/school_changes", "app/schools"),
    "classrooms": ("reconcile/classroom_changes", "app/classrooms"),
    "users": ("reconcile/users", "reconcile/user_changes", "app/users"),
    "user_roles": ("reconcile/role_changes", "app/user_roles"),
    "enrollments": ("reconcile/enrollment_differences", "reconcile/enrollment_changes", "app/enrollments"),
}
# The columns that identify a row. A sync sets them once, or never.
KEYS = {
    "schools": {"school_id"},
    "classrooms": {"classroom_id"},
    "users": {"user_id"},
    "user_roles": {"user_id", "role", "school_id"},
    "enrollments": {"classroom_id", "user_id", "role"},
}
# Columns that a sync does not decide. A new column that is not meant for it has to be added here.
NOT_OF_A_SYNC = {
    "district_id": "the same in every row of a sync",
    "created_at": "the time of the sync",
    "updated_at": "the time of the sync",
    "username_key": "made by the database from the username",
    "protected": "set by imports and by support (R8.1)",
    "do_not_restore": "set by support (R8.3)",
}
# Common table expressions and statements whose lists are not of the written row.
OTHER_LISTS = {
    "reconcile/users": {"people"},
    "reconcile/role_changes": {"listed"},
    "reconcile/enrollment_differences": {"unchanged", "staying"},
}
ROSTERED = {"source": "always clever", "deleted_at": "always null"}
# The columns that a list may leave out, and why.
LEFT_OUT: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("reconcile/users", "described: select 1"): {**ROSTERED, "login_methods": "follows from these columns"},
    ("reconcile/users", "the result: select 1"): ROSTERED,
    ("reconcile/role_changes", "the result: where 1"): {"source": "a role of another source stays as it is (R5.8)"},
    ("reconcile/role_changes", "the result: after 1"): {"deleted_at": "null in a new row"},
    ("reconcile/role_changes", "the result: before 2"): {"source": "stays when a role is lost"},
    ("reconcile/role_changes", "the result: after 3"): {"source": "stays when a role is lost"},
    ("reconcile/enrollment_differences", "desired: select 1"): ROSTERED,
    ("reconcile/enrollment_differences", "compared: select 1"): ROSTERED,
    ("reconcile/enrollment_differences", "the result: select 1"): ROSTERED,
    ("reconcile/enrollment_changes", "the result: before 1"): {"is_primary": "stays when an enrollment ends", "source": "stays too"},
    ("reconcile/enrollment_changes", "the result: after 1"): {"is_primary": "stays when an enrollment ends", "source": "stays too"},
    ("reconcile/enrollment_changes", "the result: after 2"): {"deleted_at": "null in a new row"},
}
# The statements that compare a row column by column instead of as a tuple.
COMPARED_IN_WHERE = {("reconcile/role_changes", "the result"), ("reconcile/enrollment_differences", "compared")}


@dataclass(frozen=True)
class Place:
    """One list of columns.

    Attributes:
        name: where it is in its file: the common table expression (or `the result`), what it is, and which of its kind.
        columns: in the order of the list.
        remove: removes the column at this position from the parsed statement.
        sources: the columns that the values come from, if their names must be the same.
    """

    name: str
    columns: list[str]
    remove: Callable[[int], None]
    sources: list[str] = field(default_factory=list)


@cache
def _parsed(file: str) -> exp.Expr:
    return sqlglot.parse_one((SQL / f"{file}.sql").read_text(encoding="utf-8"), dialect="postgres")


def parse(file: str) -> exp.Expr:
    """The statement of a file, in a copy that may be changed."""
    return _parsed(file).copy()


def places(file: str, tree: exp.Expr) -> list[Place]:
    """Every list of columns of the written row in a file."""
    found: list[Place] = []
    numbers: dict[str, int] = {}
    for node in tree.walk(bfs=False):
        owner = _owner(node)
        if owner in OTHER_LISTS.get(file, ()) or (file.startswith("app/") and owner == "the result"):
            continue
        for kind, place in _lists(node, in_where=(file, owner) in COMPARED_IN_WHERE):
            name = f"{owner}: {kind}"
            numbers[name] = numbers.get(name, 0) + 1
            found.append(Place(f"{name} {numbers[name]}", place.columns, place.remove, place.sources))
    return found


def _owner(node: exp.Expr) -> str:
    cte = node.find_ancestor(exp.CTE)
    return cte.alias if cte is not None else "the result"


def _lists(node: exp.Expr, *, in_where: bool) -> Iterator[tuple[str, Place]]:
    """The lists that begin at this node, each with its kind."""
    if isinstance(node, exp.Select) and _is_outermost(node) and not node.is_star:
        names = [each.alias_or_name for each in node.expressions]
        yield "select", _items(node.expressions, names)
        old = [each for each in node.expressions if each.alias_or_name.startswith("old_")]
        if old:
            yield "old values", _items(old, [each.alias_or_name.removeprefix("old_") for each in old])
        if in_where and node.args.get("joins"):
            differing = [each for each in node.args["where"].walk() if _compared(each)]
            yield "where", _replaced(differing, [_compared(each) for each in differing])
    elif isinstance(node, exp.Tuple) and isinstance(node.parent, exp.NullSafeNEQ):
        yield "is distinct from", _items(node.expressions, [each.name for each in node.expressions])
    elif isinstance(node, exp.Anonymous) and node.name.lower() == "jsonb_build_object":
        values = [each.name.removeprefix("old_") if isinstance(each, exp.Column) else "" for each in node.expressions[1::2]]
        yield _alias(node), _pairs(node, values)
    elif isinstance(node, exp.Literal) and node.is_string and node.name.startswith("{"):
        yield _alias(node), _literal(node)
    elif isinstance(node, exp.Insert):
        yield "insert", _items(node.this.expressions, [each.name for each in node.this.expressions])
    elif isinstance(node, exp.Update):
        sources = [each.expression.name if isinstance(each.expression, exp.Column) else "" for each in node.expressions]
        yield "update", _items(node.expressions, [each.this.name for each in node.expressions], sources)


def _is_outermost(node: exp.Expr) -> bool:
    """Whether a select, or its union, is a whole common table expression or the whole statement."""
    parent = node.parent
    while isinstance(parent, exp.Union):
        parent = parent.parent
    return parent is None or isinstance(parent, exp.CTE | exp.Insert)


def _compared(node: exp.Expr) -> str:
    """The column that this condition compares, if any."""
    if isinstance(node, exp.NEQ) and isinstance(node.this, exp.Column):
        return node.this.name
    if isinstance(node, exp.Is) and node.args.get("negate"):  # is not null
        return str(node.this.name)
    return ""


def _alias(node: exp.Expr) -> str:
    alias = node.find_ancestor(exp.Alias)
    assert alias is not None
    return str(alias.alias)


def _items(items: list[exp.Expr], columns: list[str], sources: list[str] | None = None) -> Place:
    return Place("", columns, lambda position: _discard(items[position]), sources or [])


def _discard(item: exp.Expr) -> None:
    item.pop()


def _replaced(conditions: list[exp.Expr], columns: list[str]) -> Place:
    return Place("", columns, lambda position: _put(conditions[position], exp.false()))


def _put(old: exp.Expr, new: exp.Expr) -> None:
    old.replace(new)


def _pairs(node: exp.Anonymous, sources: list[str]) -> Place:
    def remove(position: int) -> None:
        for each in node.expressions[2 * position : 2 * position + 2]:
            each.pop()

    return Place("", [each.name for each in node.expressions[::2]], remove, sources)


def _literal(node: exp.Literal) -> Place:
    columns = list(json.loads(node.name))
    return Place(
        "",
        columns,
        lambda position: _put(node, exp.Literal.string(json.dumps(dict.fromkeys(columns[:position] + columns[position + 1 :])))),
    )


def columns_of(table: str) -> tuple[str, ...]:
    """The columns that a sync decides in each row of a table."""
    return tuple(each for each in known_tables()[f"app.{table}"] if each not in KEYS[table] and each not in NOT_OF_A_SYNC)


def faults(file: str, tree: exp.Expr, columns: tuple[str, ...]) -> list[str]:
    """Columns that are missing in a list, and lists that do not agree."""
    found = []
    orders: dict[str, list[str]] = {}
    for place in places(file, tree):
        where = f"dbt_like_sql/{file}.sql, {place.name}"
        left_out = LEFT_OUT.get((file, place.name), {})
        found += [f"{where}: the column {each} is missing" for each in columns if each not in place.columns and each not in left_out]
        crossed = [(name, source) for name, source in zip(place.columns, place.sources, strict=False) if source not in ("", name)]
        found += [f"{where}: the column {name} gets the value of {source}" for name, source in crossed]
        # An insert and its select must have the same order, and so must the parts of a union.
        kind = place.name.rsplit(" ", 1)[0].replace("insert", "select")
        order = [each for each in place.columns if each in columns]
        if kind.endswith(("select", "is distinct from")) and orders.setdefault(kind, order) != order:
            found.append(f"{where}: the columns are in another order than in the list before")
    return found


EVERY_FILE = [(table, file) for table, files in FILES.items() for file in files]
EVERY_PLACE = [(table, file, place.name) for table, file in EVERY_FILE for place in places(file, parse(file))]


@pytest.mark.parametrize(("table", "file"), EVERY_FILE)
def test_every_list_has_every_column(table: str, file: str) -> None:
    """R7.2, R11.5."""
    found = faults(file, parse(file), columns_of(table))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("table", "file", "name"), EVERY_PLACE)
def test_a_column_that_is_forgotten_in_one_list_is_reported(table: str, file: str, name: str) -> None:
    """Each column in turn is removed from the list. The message names the file, the list and the column."""
    (listed,) = [place.columns for place in places(file, parse(file)) if place.name == name]
    needed = [column for column in columns_of(table) if column not in LEFT_OUT.get((file, name), {})]
    assert needed
    for column in needed:
        tree = parse(file)
        (place,) = [each for each in places(file, tree) if each.name == name]
        for position in [at for at, each in enumerate(listed) if each == column]:
            place.remove(position)
        assert f"dbt_like_sql/{file}.sql, {name}: the column {column} is missing" in faults(file, tree, columns_of(table))


@pytest.mark.parametrize(("table", "file"), EVERY_FILE)
def test_a_new_column_of_the_table_is_missing_in_every_list(table: str, file: str) -> None:
    """The state after a migration that adds a column, without any other change."""
    reported = faults(file, parse(file), (*columns_of(table), "not_there_yet"))
    expected = [name for each_table, each_file, name in EVERY_PLACE if (each_table, each_file) == (table, file)]
    assert reported == [f"dbt_like_sql/{file}.sql, {name}: the column not_there_yet is missing" for name in expected]


def test_every_exception_is_needed() -> None:
    """An exception for a list, a column or a common table expression that does not exist any more has to be removed."""
    tables = {file: table for table, file in EVERY_FILE}
    listed = {(file, name) for _, file, name in EVERY_PLACE}
    assert set(LEFT_OUT) <= listed
    for (file, name), columns in LEFT_OUT.items():
        (place,) = [each for each in places(file, parse(file)) if each.name == name]
        assert set(columns) <= set(columns_of(tables[file])) - set(place.columns)
    for file, expressions in OTHER_LISTS.items():
        assert expressions <= {each.alias for each in parse(file).find_all(exp.CTE)}
    assert set(NOT_OF_A_SYNC) <= {column for table in FILES for column in known_tables()[f"app.{table}"]}


def test_lists_that_do_not_agree_are_reported() -> None:
    """Two columns that change places in one part of a union, and a value of another column."""
    file = "reconcile/user_changes"
    text = (SQL / f"{file}.sql").read_text(encoding="utf-8")
    swapped = text.replace("users.first_name,\n        users.middle_name", "users.middle_name,\n        users.first_name", 1)
    crossed = text.replace("'grade', existing.grade", "'grade', existing.sis_id")
    for changed, message in ((swapped, "desired: select 2: the columns are in another order"), (crossed, "gets the value of sis_id")):
        assert changed != text
        reported = faults(file, sqlglot.parse_one(changed, dialect="postgres"), columns_of("users"))
        assert message in "\n".join(reported)
