"""R7.3: a loss is a loss whatever table it is in. Everything that a sync can do to a row of `app` has a brake, or a reason why it has none.

The list of what a sync can do comes from the models that plan changes (their actions) and from the migrations (the columns of their
tables), so a new action or column fails here until somebody has asked what it takes from people. Does not belong here: that a brake counts
what it should (`sync/test_brakes.py`, `sync/test_losses.py`).
"""

from collections.abc import Iterator

import sqlglot
from sqlglot import exp

from roster_pipeline.brake_kinds import KINDS
from roster_pipeline.database.migrate import known_tables
from roster_pipeline.sync.plan import PLANS
from roster_pipeline.sync.run import project_models

# The table and an action on it, or a column that an update changes -> the brakes that count it.
BRAKED: dict[tuple[str, str], tuple[str, ...]] = {
    ("schools", "soft_delete"): ("empty_collection", "school_role", "initial"),
    ("classrooms", "soft_delete"): ("classrooms", "empty_collection", "initial"),
    ("users", "soft_delete"): ("district_role", "school_role", "empty_collection", "initial"),
    ("users", "relink"): ("relinks",),
    ("schools", "relink"): ("relinks",),
    ("users", "create"): ("licenses",),
    ("users", "restore"): ("licenses",),
    ("users", "username"): ("identities",),
    ("users", "login_methods"): ("identities",),
    ("users", "first_name"): ("identities",),
    ("users", "last_name"): ("identities",),
    ("users", "middle_name"): ("identities",),
    ("user_roles", "role_gain"): ("new_admins",),
    ("enrollments", "soft_delete"): ("enrollments", "classrooms", "empty_collection"),
}
_TAKES_NOTHING = "It takes nothing from anybody: "
NO_BRAKE: dict[tuple[str, str], str] = {
    ("schools", "create"): _TAKES_NOTHING + "a school is there that was not.",
    ("schools", "restore"): _TAKES_NOTHING + "a school is there again.",
    ("schools", "update"): "See its columns.",
    ("schools", "name"): "Nobody gets in by it, and the school is known by its id.",
    ("schools", "clever_id"): "The school stays the same school; people who move with it are relinks.",
    ("schools", "source"): "Nobody reads it to let somebody in.",
    ("schools", "deleted_at"): "The actions soft_delete and restore.",
    ("classrooms", "create"): _TAKES_NOTHING + "a classroom is there that was not.",
    ("classrooms", "restore"): _TAKES_NOTHING + "a classroom is there again.",
    ("classrooms", "update"): "See its columns.",
    ("classrooms", "name"): "Members and their work stay, and Clever gives it back the next night.",
    ("classrooms", "clever_name"): "What Clever calls it; nobody reads it but a sync.",
    ("classrooms", "term_name"): "A label.",
    ("classrooms", "starts_on"): "A label: the application shows the classroom by its row.",
    ("classrooms", "ends_on"): "A label; but it decides whether the end of the classroom counts, and then what is stored counts.",
    ("classrooms", "school_id"): "Members stay. Students whose school it is not lose their place there: brake enrollments.",
    ("classrooms", "clever_id"): "The classroom and its members stay.",
    ("classrooms", "source"): "Nobody reads it to let somebody in.",
    ("classrooms", "deleted_at"): "The actions soft_delete and restore.",
    ("users", "adopt"): "An account from before Clever gets its owner; a wrong one needs an equal username, and is one person each.",
    ("users", "update"): "See its columns.",
    ("users", "district_username"): "What Clever gave. The username is what somebody gets in with, and that has a brake.",
    ("users", "clever_id"): "The actions adopt and relink.",
    ("users", "email"): "Google sign-in goes with it, and that is a way to sign in: brake identities counts login_methods.",
    ("users", "sis_id"): "Nobody gets in by it. It helps to recognise somebody with a new Clever id, and that is a brake of its own.",
    ("users", "state_id"): "Nobody gets in by it, and Clever gives it back the next night.",
    ("users", "student_number"): "Nobody gets in by it, and Clever gives it back the next night.",
    ("users", "grade"): "Promotion of everybody at once is a normal night. What the agreement makes of a grade is a deactivation.",
    ("users", "school_id"): "The primary school; roles and enrollments there are what counts.",
    ("users", "source"): "Nobody reads it to let somebody in.",
    ("users", "license_status"): "Nobody who is licensed loses a seat (R9.2), and a new student who waits is reported.",
    ("users", "deleted_at"): "The actions soft_delete and restore.",
    ("user_roles", "role_loss"): "Who loses the last role is deactivated, which counts. Who keeps another one is still there (R7.4).",
    ("user_roles", "source"): "Nobody reads it to let somebody in.",
    ("user_roles", "deleted_at"): "The actions role_gain and role_loss.",
    ("enrollments", "create"): _TAKES_NOTHING + "somebody is in a classroom who was not.",
    ("enrollments", "restore"): _TAKES_NOTHING + "somebody is in a classroom again.",
    ("enrollments", "update"): "See its columns.",
    ("enrollments", "is_primary"): "Every teacher of a classroom stays in it; who is first is Clever's to say.",
    ("enrollments", "source"): "Nobody reads it to let somebody in.",
    ("enrollments", "deleted_at"): "The actions soft_delete and restore.",
}
# Tables that a sync writes and that have no rows of people or places.
OF_NOBODY = {"agreed_schools": "The agreement keeps the Clever id of a school that it names (R6.4)."}
# What no sync writes in a row that exists, or what no person has.
NEVER_UPDATED = {
    "users": {"protected", "do_not_restore", "username_key"},
    "schools": {"protected"},
    "classrooms": {"protected"},
    "user_roles": {"user_id", "role", "school_id"},
    "enrollments": {"classroom_id", "user_id", "role"},
}
BOOKKEEPING = {"district_id", "created_at", "updated_at"}


def _actions(table: str) -> set[str]:
    """The literals that the models of a table name as `action`."""
    models = project_models().by_name
    plan = models[PLANS[table]]
    trees = [sqlglot.parse_one(each.sql, dialect="postgres") for each in (plan, *(models[name] for name in plan.reads if name in models))]
    values = [each for tree in trees for each in tree.find_all(exp.Alias) if each.alias == "action"]
    results = [branch for each in values for branch in _results(each.this)]
    return {each.name for each in results if isinstance(each, exp.Literal)}


def _results(value: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(value, exp.Case):
        yield from (each.args["true"] for each in value.args["ifs"])
        yield value.args["default"]
    else:
        yield value


def _columns(table: str) -> set[str]:
    key = {"schools": {"school_id"}, "classrooms": {"classroom_id"}, "users": {"user_id"}}.get(table, set())
    return set(known_tables()[f"app.{table}"]) - BOOKKEEPING - NEVER_UPDATED[table] - key


def test_everything_that_a_sync_can_do_has_a_brake_or_a_reason() -> None:
    """R7.3: a new table, action or column fails here."""
    written = {model.table for model in project_models().of("app")}
    assert written == PLANS.keys() | OF_NOBODY.keys()
    possible = {(table, what) for table in PLANS for what in _actions(table) | _columns(table)}
    assert possible == BRAKED.keys() | NO_BRAKE.keys()
    assert not BRAKED.keys() & NO_BRAKE.keys()


def test_the_actions_are_those_of_the_history() -> None:
    """The models name every action of `ops.changes`, and no other."""
    assert set().union(*(_actions(table) for table in PLANS)) == {
        *("create", "update", "restore", "soft_delete", "adopt", "relink", "role_gain", "role_loss")
    }


def test_every_brake_counts_something_and_exists() -> None:
    """No brake is named that does not exist, and none is left that counts nothing."""
    assert {kind for kinds in BRAKED.values() for kind in kinds} == KINDS.keys()


def test_a_column_with_a_brake_is_counted_or_held_by_its_model() -> None:
    """The brake `identities` counts or keeps each column that is said to be its."""
    models = project_models().by_name
    text = models["reconcile.brake_acts"].sql + models["reconcile.users"].sql
    for (table, what), kinds in BRAKED.items():
        if "identities" in kinds:
            assert what in _columns(table)
            assert f"existing.{what}" in text, what
