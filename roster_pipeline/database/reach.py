"""The reach of a SQL model: which other records a row of it can depend on, found in its SQL.

Belongs here: the values of the header line `decides by`, and finding where a statement combines rows of several records: `group by`,
aggregates, `distinct`, windows, joins and subqueries. Does not belong here: how the incremental plan uses it (`sync/incremental.py`).

It finds the least value that a header must have; a header may have a larger one. It follows columns through the common table expressions of
one file. It knows only the name of another model's column, and cannot see which tables a database function reads. The tests that compare
the incremental plan with the full plan cover both.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, TypeVar, get_args

from sqlglot import exp
from sqlglot.optimizer.scope import Scope, traverse_scope

# What a row of the model depends on. Each value includes those before it.
#
# itself    one record: its own columns, its own rows in `app`, and what it refers to by id (its school, its classroom, the agreement)
# name      also people who have the same name, a username or Clever id that is equal after app.normalize_username, or the same sis_id
# section   also all sections that list the person, and the order of the teachers there
# school    also other people of the same classroom or school
# district  any other record: another column that is equal, a count, a share, a rank
DecidesBy = Literal["itself", "name", "section", "school", "district"]
REACHES: tuple[DecidesBy, ...] = get_args(DecidesBy)

# Tables that are the same for every record: the agreement, the schools, the terms, and the holds. An incremental plan has all their rows:
# it is made only if no school and no term has changed, no brake holds anything, and every element of the collections can be read.
SHARED = frozenset(
    {"app.agreed_schools", "app.districts", "app.schools", "staging.districts", "staging.schools", "staging.terms", "staging.unreadable"}
    | {"reconcile.holds", "reconcile.license_hold", "reconcile.schools", "reconcile.school_status"}
)
# Tables with one row for each section and person in it.
_MEMBERS = frozenset({"app.enrollments", "reconcile.memberships", "reconcile.enrollment_changes"})
_SECTIONS = frozenset(
    {"clever.sections", "staging.sections", "app.classrooms"}
    | {"reconcile.classrooms", "reconcile.classroom_status", "reconcile.classroom_changes", "reconcile.unchanged_classrooms"}
)

# What a column identifies. `record` is a person or a section.
_Kind = Literal["person", "section", "record", "name", "sis_id", "other"]
_COLUMNS: Mapping[str, _Kind] = {
    **dict.fromkeys(("user_id", "person", "linked_id", "waits_for"), "person"),
    **dict.fromkeys(("classroom_id", "section"), "section"),
    "entity_id": "record",
    **dict.fromkeys(("username", "username_key", "desired_username", "desired_key", "plain_username", "own_key"), "name"),
    **dict.fromkeys(("district_username", "district_username_key"), "name"),
    "sis_id": "sis_id",
}
_RECORD: frozenset[_Kind] = frozenset({"person", "section", "record"})
_E = TypeVar("_E", bound=exp.Expr)
_TRANSPARENT = (exp.Cast, exp.Paren, exp.Min, exp.Max, exp.Alias)


def required_reach(tree: exp.Expr) -> tuple[DecidesBy, str]:
    """The least value that a model's header may have, and the part of the SQL that requires it."""
    found: list[tuple[DecidesBy, str]] = [("itself", "")]
    for scope in traverse_scope(tree):
        if isinstance(scope.expression, exp.Select):
            found += _meetings(scope, scope.expression)
            found += _links(scope)
        elif isinstance(scope.expression, exp.SetOperation) and (scope.expression.args.get("distinct") or not _is_union(scope)):
            found += _meeting(scope, scope.expression.selects, "combines rows that are equal", scope.set_operation_scopes)
    return max(found, key=lambda each: REACHES.index(each[0]))


def _is_union(scope: Scope) -> bool:
    return isinstance(scope.expression, exp.Union)


def _meetings(scope: Scope, select: exp.Select) -> Iterator[tuple[DecidesBy, str]]:
    """Where one SELECT combines its rows."""
    group, distinct = select.args.get("group"), select.args.get("distinct")
    if group is not None:
        yield from _meeting(scope, [_by_position(select, each) for each in group.expressions], "groups rows")
    elif _has_aggregate(select):
        yield from _meeting(scope, [], "has an aggregate over all rows")
    if distinct is not None:
        by = distinct.args.get("on")
        yield from _meeting(scope, by.expressions if by is not None else select.expressions, "takes distinct rows")
    named = {each.name: each for each in select.args.get("windows") or ()}
    for window in _inside(select, exp.Window):
        if window in named.values():
            continue
        # `over same_name` has no partition of its own.
        partition = window.args.get("partition_by") or getattr(named.get(window.alias), "args", {}).get("partition_by")
        yield from _meeting(scope, partition or [], "has a window over rows")
    if select.args.get("limit") or select.args.get("offset"):
        yield from _meeting(scope, [], "takes the first rows")


def _meeting(scope: Scope, keys: Iterable[exp.Expr], what: str, parts: Iterable[Scope] = ()) -> Iterator[tuple[DecidesBy, str]]:
    """The reach that is needed to combine rows with equal values of these keys."""
    sources = [source for each in (scope, *parts) for source in _sources(each)]
    if all(_is_shared(each, scope) for each in sources):
        return
    keys = list(keys)
    kinds = {_kind(each, scope) for each in keys} | {inner for inner, _ in _outer_pairs(scope)}
    reach = _reach_of(kinds, among_members=any(_is_of_members(each) for each in sources))
    if reach != "itself":
        yield reach, f"{what}{' by ' + ', '.join(each.sql('postgres') for each in keys) if keys else ''}"


def _reach_of(kinds: set[_Kind], *, among_members: bool) -> DecidesBy:
    """The reach of combining rows that are equal in columns of these kinds.

    Args:
        among_members: whether there is one row for each member of a section.
    """
    if kinds & {"person", "record"}:
        return "section" if among_members and "section" not in kinds else "itself"
    if "section" in kinds:
        return "school" if among_members else "itself"
    return "name" if kinds & {"name", "sis_id"} else "district"


def _links(scope: Scope) -> Iterator[tuple[DecidesBy, str]]:
    """How one SELECT joins its tables, and a subquery the row of the statement around it."""
    open_sources = {name: source for name, (_, source) in scope.selected_sources.items() if not _is_shared(source, scope)}
    if not open_sources:
        return
    linked: dict[frozenset[str], set[_Kind]] = {}
    for left, right in _equalities(scope):
        names = frozenset({_source_name(left, scope), _source_name(right, scope)} & open_sources.keys())
        if len(names) == 2:
            linked.setdefault(names, set()).add(_common(_kind(left, scope), _kind(right, scope)))
    reached = {next(iter(open_sources))}
    optional = {join.alias_or_name for join in scope.expression.args.get("joins") or () if join.side in ("LEFT", "RIGHT", "FULL")}
    for reach in REACHES:
        # Every table that can be joined by links with at most this reach.
        while more := {
            name
            for pair, kinds in linked.items()
            if len(pair & reached) == 1
            for name in pair - reached
            if REACHES.index(_reach_of_link(kinds, pair, open_sources, is_optional=bool(pair & optional))) <= REACHES.index(reach)
        }:
            yield reach, f"joins {', '.join(sorted(more))}"
            reached |= more
    if missing := sorted(open_sources.keys() - reached):
        yield "district", f"joins {', '.join(missing)} by no id or name"
    if scope.is_subquery:
        is_of_members = any(_is_of_members(each) for each in open_sources.values())
        kinds = {_common(inner, outer) for inner, outer in _outer_pairs(scope)}
        # A subquery depends on all rows of its tables.
        yield _reach_of(kinds, among_members=is_of_members), f"has a subquery on {', '.join(sorted(open_sources))}"


def _reach_of_link(kinds: set[_Kind], pair: frozenset[str], sources: Mapping[str, object], *, is_optional: bool) -> DecidesBy:
    of_members = [_is_of_members(sources[each]) for each in pair]
    return _reach_of(kinds, among_members=all(of_members) or (is_optional and any(of_members)))


def _equalities(scope: Scope) -> Iterator[tuple[exp.Expr, exp.Expr]]:
    """Pairs of expressions that the SELECT requires to be equal: conditions that are joined by AND alone."""
    select = scope.expression
    joins = select.args.get("joins") or []
    conditions = [each.args["on"] for each in joins if each.args.get("on")]
    conditions += [select.args["where"].this] if select.args.get("where") else []
    for condition in conditions:
        for each in condition.unnest().flatten() if isinstance(condition.unnest(), exp.And) else [condition.unnest()]:
            if isinstance(each, exp.EQ | exp.NullSafeEQ):
                left, right = each.this.unnest(), each.expression.unnest()
                if isinstance(left, exp.Tuple) and isinstance(right, exp.Tuple):
                    yield from zip(left.expressions, right.expressions, strict=False)
                else:
                    yield left, right
    for join in joins:
        for column in join.args.get("using") or ():
            first = next((name for name in scope.selected_sources if name != join.alias_or_name), None)
            yield exp.column(column.name, table=first), exp.column(column.name, table=join.alias_or_name)


def _outer_pairs(scope: Scope) -> Iterator[tuple[_Kind, _Kind]]:
    """Kinds of the columns by which a subquery belongs to a row of the statement around it: its own, and that of the row."""
    if not scope.is_subquery or scope.parent is None:
        return
    for pair in _equalities(scope):
        own, outer = sorted(pair, key=lambda each: _source_name(each, scope) not in scope.selected_sources)
        if _source_name(own, scope) in scope.selected_sources and _source_name(outer, scope) in scope.parent.selected_sources:
            yield _kind(own, scope), _kind(outer, scope)
    asked = scope.expression.find_ancestor(exp.In, exp.Select)
    if isinstance(asked, exp.In) and isinstance(scope.expression, exp.Select):
        yield _kind(scope.expression.expressions[0], scope), _kind(asked.this, scope.parent)


def _common(one: _Kind, other: _Kind) -> _Kind:
    if one == other:
        return one
    if {one, other} <= _RECORD:
        return "record"
    return "name" if {one, other} <= {*_RECORD, "name"} else "other"


def _kind(expression: exp.Expr, scope: Scope, seen: frozenset[int] = frozenset()) -> _Kind:
    """What an expression identifies."""
    if isinstance(expression, _TRANSPARENT):
        return _kind(expression.this, scope, seen)
    if isinstance(expression, exp.Coalesce):
        return _weakest(_kind(each, scope, seen) for each in (expression.this, *expression.expressions))
    if isinstance(expression, exp.Case):
        values = [each.args["true"] for each in expression.args["ifs"]] + [each for each in [expression.args.get("default")] if each]
        return _weakest(_kind(each, scope, seen) for each in values if not isinstance(each, exp.Null))
    # app.normalize_username(...)
    function = expression.find(exp.Anonymous) if isinstance(expression, exp.Anonymous | exp.Dot) else None
    if function is not None and function.name.lower() == "normalize_username":
        return "name" if _kind(function.expressions[0], scope, seen) in {*_RECORD, "name"} else "other"
    if isinstance(expression, exp.Column):
        return _kind_of_column(expression, scope, seen)
    return "other"


def _kind_of_column(column: exp.Column, scope: Scope, seen: frozenset[int]) -> _Kind:
    source = _source(column, scope)
    if isinstance(source, Scope) and not isinstance(source.expression, exp.UDTF) and id(source) not in seen:
        around = source.expression.parent
        # `with people (user_id) as (...)` renames the columns.
        names = (around.alias_column_names if isinstance(around, exp.CTE | exp.Subquery) else []) or _output_names(source)
        if column.name in names:
            position = names.index(column.name)
            return _weakest(_kind(each[position], inner, seen | {id(source)}) for each, inner in _branches(source) if position < len(each))
        if "*" in names and len(source.selected_sources) > 0:
            return _kind_of_column(exp.column(column.name), source, seen | {id(source)})
    if column.name == "clever_id":
        name = _table_name(source)
        return "section" if name in _SECTIONS else "record" if name == "staging.quarantined" else "person"
    return _COLUMNS.get(column.name, "other")


def _output_names(scope: Scope) -> list[str]:
    return list(scope.expression.named_selects) if isinstance(scope.expression, exp.Query) else []


def _branches(scope: Scope) -> Iterator[tuple[list[exp.Expr], Scope]]:
    """The SELECTs that a source is made of, each with its output columns."""
    if isinstance(scope.expression, exp.Select):
        yield scope.expression.expressions, scope
    for each in scope.set_operation_scopes or ():
        yield from _branches(each)


def _weakest(kinds: Iterable[_Kind]) -> _Kind:
    found: _Kind | None = None
    for kind in kinds:
        found = kind if found is None else _common(found, kind)
    return found or "other"


def _source(column: exp.Column, scope: Scope) -> object:
    """The source of a column: a table, or the scope of a subquery or common table expression. None if it is unclear."""
    around: Scope | None = scope
    while around is not None:
        selected = {name: source for name, (_, source) in around.selected_sources.items()}
        if column.table in selected:
            return selected[column.table]
        if not column.table and len(selected) == 1:
            return next(iter(selected.values()))
        if not column.table:
            scopes = [each for each in selected.values() if isinstance(each, Scope)]
            return next((each for each in scopes if column.name in _output_names(each)), None)
        around = around.parent
    return None


def _source_name(expression: exp.Expr, scope: Scope) -> str:
    """The name or alias of the table that an expression's columns are from; empty if there are several, or none."""
    columns = list(expression.find_all(exp.Column))
    names = {each.table or (next(iter(scope.selected_sources)) if len(scope.selected_sources) == 1 else "") for each in columns}
    return names.pop() if len(names) == 1 else ""


def _sources(scope: Scope) -> list[object]:
    return [source for _, source in scope.selected_sources.values()]


def _tables(source: object, seen: frozenset[int] = frozenset()) -> Iterator[exp.Expr]:
    """The tables and the unnested columns that a source is made of."""
    if isinstance(source, exp.Table):
        yield source
    elif isinstance(source, Scope) and id(source) not in seen:
        if isinstance(source.expression, exp.UDTF):
            yield source.expression
        for each in (*_sources(source), *(source.set_operation_scopes or ())):
            yield from _tables(each, seen | {id(source)})


def _table_name(source: object) -> str:
    return f"{source.db}.{source.name}" if isinstance(source, exp.Table) else ""


def _is_shared(source: object, scope: Scope) -> bool:
    """Whether a source is the same for every record, or made of the record's own columns."""
    tables = [each for each in _tables(source) if isinstance(each, exp.Table)]
    return all(_table_name(each) in SHARED or (_table_name(each) == "staging.quarantined" and _is_of_places(scope)) for each in tables)


def _is_of_places(scope: Scope) -> bool:
    """Whether a source of quarantined records has only schools or terms."""
    return any(right.sql() in ("'schools'", "'terms'") and left.name == "resource" for left, right in _equalities(scope))


def _is_of_members(source: object) -> bool:
    """Whether a source has one row for each member of a section."""
    return any(_table_name(each) in _MEMBERS or (isinstance(each, exp.UDTF) and _unnests_members(each)) for each in _tables(source))


def _unnests_members(unnesting: exp.Expr) -> bool:
    return any(each.name in ("students", "teachers") for each in unnesting.find_all(exp.Column))


def _has_aggregate(select: exp.Select) -> bool:
    """Whether it has an aggregate that is not in a window."""
    return any(isinstance(each.find_ancestor(exp.Window, exp.Select), exp.Select) for each in _inside(select, exp.AggFunc))


def _inside(select: exp.Select, kind: type[_E]) -> Iterator[_E]:
    """Expressions of this SELECT itself, without those of its subqueries."""
    return (each for each in select.find_all(kind) if each.find_ancestor(exp.Select) is select)


def _by_position(select: exp.Select, key: exp.Expr) -> exp.Expr:
    return select.expressions[int(key.name) - 1] if isinstance(key, exp.Literal) and key.is_int else key
