"""R7.3, R7.6, R9.2: a kind of brake is one object, and every other place that names kinds agrees with it.

Each test is about one place in which a new kind could be missing. "Add a brake" in docs/architecture.md names the test for each step.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import sqlglot
from sqlglot import exp

from roster_pipeline.brake_kinds import IDENTITIES, KINDS, LICENSES, BrakeKind, kinds_counted_by
from roster_pipeline.database.engine import Database
from roster_pipeline.database.migrate import known_tables
from roster_pipeline.database.models import Model
from roster_pipeline.database.tables import PENDING_HOLDS
from roster_pipeline.profiles import Brakes, Profile
from roster_pipeline.sync.run import project_models
from roster_pipeline_tests.reference import hands

ROOT = Path(__file__).parents[1]
COLUMNS = ("school_id", "role", "collection")

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def _tree(model: str) -> exp.Expr:
    return sqlglot.parse_one(project_models().by_name[model].sql, dialect="postgres")


def _is_null(column: exp.Expr) -> bool:
    value = column.unalias()
    return isinstance(value.this if isinstance(value, exp.Cast) else value, exp.Null)


def _counted() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The kind of each SELECT of `reconcile.brake_acts`, and its columns that are not null."""
    for select in _tree("reconcile.brake_acts").find_all(exp.Select):
        kind = next((each for each in select.expressions if each.alias_or_name == "kind"), None)
        if kind is not None:
            named = dict(zip(COLUMNS, select.expressions[1:4], strict=True))
            yield kind.unalias().name, tuple(name for name, column in named.items() if not _is_null(column))


def test_the_sql_counts_every_kind_and_no_other() -> None:
    """There is no object without SQL, and no SQL without an object. Both have the columns that distinguish two brakes of the kind."""
    counted = list(_counted())
    assert set(counted) == set(dict(counted).items()), "all SELECTs of one kind have the same columns"
    assert dict(counted) == {name: KINDS[name].columns for name in kinds_counted_by("reconcile.brake_acts")}
    # The gate makes this brake itself, because all acts of its model are of one kind.
    assert kinds_counted_by("reconcile.license_acts") == (LICENSES.name,)
    assert {kind.acts for kind in KINDS.values()} == {"reconcile.brake_acts", "reconcile.license_acts"}


def test_the_sql_says_of_every_kind_out_of_how_many() -> None:
    """`active` of `reconcile.brakes` names each kind, because a limit is a share of it."""
    (case,) = [each for each in _tree("reconcile.brakes").find_all(exp.Case) if each.this is not None and each.this.name == "kind"]
    assert case.args.get("default") is None
    assert sorted(each.this.name for each in case.args["ifs"]) == sorted({kind for kind, _ in _counted()})


def _kinds_named_in(model: Model) -> set[str]:
    """The kinds with which a model compares `kind` of `reconcile.holds`."""
    tree = sqlglot.parse_one(model.sql, dialect="postgres")
    compared = [each for each in tree.find_all(exp.EQ, exp.In) if isinstance(each.this, exp.Column) and each.this.name == "kind"]
    return {literal.name for each in compared for literal in each.find_all(exp.Literal)}


def test_what_a_hold_covers_is_one_list() -> None:
    """R7.4: exactly the models in `covers` of a kind read the holds of that kind."""
    reading = {}
    for model in project_models():
        if "reconcile.holds" in model.reads:
            assert _kinds_named_in(model), f"{model.name} reads reconcile.holds and compares its kind with none"
            reading[model.name] = _kinds_named_in(model)
        # Two holds reach the models as tables of their own.
        for table, kind in (("reconcile.license_hold", LICENSES), ("reconcile.held_identities", IDENTITIES)):
            if table in model.reads:
                reading.setdefault(model.name, set()).add(kind.name)
    covered: dict[str, set[str]] = {}
    for each in KINDS.values():
        assert each.covers, each.name
        for name in each.covers:
            covered.setdefault(name, set()).add(each.name)
    assert covered == reading


def test_the_settings_have_every_limit_and_no_other() -> None:
    """The settings are floor and share of each kind that has a limit."""
    assert {setting for kind in KINDS.values() for setting in kind.settings} == set(Brakes.model_fields)
    waivers = [kind.waived_by for kind in KINDS.values() if kind.waived_by is not None]
    assert [Profile.model_fields[each].annotation for each in waivers] == [bool] * len(waivers)


def _constraint(database: Database, name: str) -> set[str]:
    query = sa.text("select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'ops.holds'::regclass and conname = :name")
    with database.engine.connect() as connection:
        return set(connection.execute(query, {"name": name}).scalar_one().split("'")[1::2])


def test_the_database_takes_a_role_with_the_kinds_that_have_one(database: Database) -> None:
    """SPEC 2: `ops.holds.role` is set for them, one hold per role."""
    assert _constraint(database, "holds_role_check") == {name for name, kind in KINDS.items() if "role" in kind.columns}


def test_the_database_takes_holds_of_every_kind_and_no_other(database: Database) -> None:
    """It is a check constraint of the migrated database."""
    assert _constraint(database, "holds_kind_check") == KINDS.keys()


def test_the_statuses_of_a_hold_are_those_of_the_database(database: Database) -> None:
    """R7.5: a hold is pending, or has one of three final statuses."""
    assert _constraint(database, "holds_status_check") == {*PENDING_HOLDS, "used", "superseded", "expired"}


@every_kind
def test_its_sentence_needs_nothing_that_a_hold_does_not_have(kind: BrakeKind) -> None:
    """It has only numbers and the columns of the kind. A school is shown separately, by name."""
    named = set(re.findall(r"\{(\w+)", kind.sentence))
    assert named <= {"acts", "active", *kind.columns} - {"school_id"}
    counts = {"acts": 1200, "active": 3000, "limit": 13.4, **({"collection": "schools"} if "collection" in kind.columns else {})}
    assert kind.meaning("student", counts).endswith(" (limit 13.4)")


@every_kind
def test_it_is_shown_at_a_table_that_outlives_the_sync(kind: BrakeKind) -> None:
    """Only stored tables are assets."""
    assert kind.asset in known_tables()
    assert kind.asset in project_models().by_name


def test_the_docs_have_every_kind() -> None:
    """The table for support has one row per kind, and the rules page names each."""
    support = (ROOT / "docs" / "support.md").read_text(encoding="utf-8")
    ((table),) = re.findall(r"^\| kind \| what is held \|.*\n\|.*\n((?:\|.*\n)+)", support, re.MULTILINE)
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(KINDS)
    rules = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    assert [name for name in KINDS if f"`{name}`" not in rules] == []


def test_the_reference_model_knows_every_kind_and_random_histories_draw_every_limit() -> None:
    """Otherwise the comparison with the reference model would say nothing about a new kind."""
    model = ast.parse((ROOT / "roster_pipeline_tests" / "reference" / "brakes.py").read_text(encoding="utf-8"))
    # The model names a brake by its identity: kind, school, role and collection.
    identities = [each.elts[0] for each in ast.walk(model) if isinstance(each, ast.Tuple) and len(each.elts) == 4]
    assert {each.value for each in identities if isinstance(each, ast.Constant)} == KINDS.keys()
    assert hands.TIGHT.keys() == Brakes.model_fields.keys()
