"""The files of dbt_like_sql/ are the only source of dependencies, run order and documentation."""

from pathlib import Path

import pytest

from roster_pipeline.database.migrate import foreign_keys, known_tables
from roster_pipeline.database.models import LAYERS, SQL, Models, load_models
from roster_pipeline.errors import PermanentError
from roster_pipeline.sync.run import project_models

OPENING = "-- What it is.\n-- grain: one row\n-- rules: R1.1\n"
HEADER = OPENING + "-- decides by: itself\n"
WARN = "-- severity: warn\n"
OFFENDERS = "select 'users' as resource, clever_id from staging.users"


def _load(root: Path, files: dict[str, str]) -> Models:
    for layer in LAYERS:
        (root / layer).mkdir()
    for name, sql in files.items():
        (root / f"{name}.sql").write_text(sql)
    return load_models({"app.users": ("user_id",)}, {}, ["users"], {}, root)


def test_a_model_runs_after_the_models_that_it_reads() -> None:
    """If it reads a model of the same or an earlier layer, that model runs before it."""
    models = project_models()
    position = {model.name: index for index, model in enumerate(models)}
    for model in models:
        for read in models.upstream(model):
            if read in position:
                assert position[read] < position[model.name], (read, model.name)


def test_tables_are_written_after_those_they_refer_to() -> None:
    """R11.5: the order of the statements that write comes from foreign keys, not from a list."""
    order = [model.table for model in project_models().of("app")]
    assert foreign_keys()["app.enrollments"] == {"app.classrooms", "app.users"}
    assert order.index("schools") < order.index("users") < order.index("enrollments")
    assert order.index("classrooms") < order.index("enrollments")
    assert set(order) == {"agreed_schools", "schools", "classrooms", "users", "user_roles", "enrollments"}


def test_one_statement_writes_a_table_and_its_history() -> None:
    """SPEC 2: every write of a row of the roster has exactly one row in ops.changes. The agreement is no part of the roster."""
    for model in project_models().of("app"):
        assert model.writes == {model.name} | ({"ops.changes"} if model.table != "agreed_schools" else set())


def test_stored_models_have_a_key_of_columns_of_their_table() -> None:
    """A sync compares the result of a stored model with the table row by row, by this key."""
    for model in project_models().of("staging", "reconcile"):
        if model.name in known_tables():
            assert model.key
            assert set(model.key) <= set(known_tables()[model.name])


def test_reading_an_unknown_table_is_an_error(tmp_path: Path) -> None:
    """Also if only a common table expression reads it."""
    sql = HEADER + "with x as (select user_id from staging.peeple) select user_id from x"
    with pytest.raises(PermanentError, match=r"staging/users\.sql names staging\.peeple"):
        _load(tmp_path, {"staging/users": sql})


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        (HEADER + "select 1; select 2", "holds 2 statements"),
        (HEADER + "select (", "cannot be parsed"),
        ("select 1", "does not say its grain and rules"),
        (HEADER.replace("-- What it is.\n", "") + WARN + OFFENDERS, "has no description"),
        (HEADER + OFFENDERS, "does not say its severity"),
        (HEADER + "-- severity: fatal\n" + OFFENDERS, "severity 'fatal'"),
        (HEADER + WARN + "select clever_id from staging.users", "returns clever_id; an audit returns resource and clever_id"),
        (HEADER + WARN + "select clever_id, 'users' as resource from staging.users", "returns clever_id, resource; an audit returns"),
    ],
)
def test_a_file_that_is_not_a_model_is_an_error_that_names_it(tmp_path: Path, sql: str, reason: str) -> None:
    """The error says which file it is, and what to correct."""
    with pytest.raises(PermanentError, match=reason) as refusal:
        _load(tmp_path, {"audits/broken": sql})
    assert "dbt_like_sql/audits/broken.sql" in str(refusal.value)


@pytest.mark.parametrize("layer", ["staging", "reconcile", "app", "ops"])
def test_every_model_has_a_description(tmp_path: Path, layer: str) -> None:
    """Dagster shows it. A comment inside the statement is not enough."""
    header = HEADER.replace("-- What it is.\n", "")
    with pytest.raises(PermanentError, match=rf"dbt_like_sql/{layer}/users\.sql has no description"):
        _load(tmp_path, {f"{layer}/users": header + "\n-- Who it is.\nselect user_id from app.users"})


def test_a_circle_is_an_error(tmp_path: Path) -> None:
    """Two models that read each other cannot be ordered."""
    files = {
        "reconcile/a": HEADER + "select user_id from reconcile.b",
        "reconcile/b": HEADER + "select user_id from reconcile.a",
    }
    with pytest.raises(PermanentError, match="circle"):
        _load(tmp_path, files)


def test_reading_a_later_layer_means_its_state_before_the_sync(tmp_path: Path) -> None:
    """A decision reads `app` before the sync writes to it. So `app` is not upstream of the decision."""
    files = {
        "staging/users": HEADER + "select user_id from clever.users",
        "reconcile/removed": HEADER + "select users.user_id from app.users as users left join staging.users as s using (user_id)",
        "app/users": HEADER + "insert into app.users select user_id from reconcile.removed",
    }
    models = _load(tmp_path, files)
    assert [model.name for model in models] == ["staging.users", "reconcile.removed", "app.users"]
    assert models.upstream(models.by_name["reconcile.removed"]) == {"staging.users"}


@pytest.mark.parametrize("layer", ["reconcile", "audits"])
def test_a_model_that_decides_must_have_a_reach(tmp_path: Path, layer: str) -> None:
    """The incremental plan relies on it."""
    with pytest.raises(PermanentError, match="does not say what it decides by") as refusal:
        _load(tmp_path, {f"{layer}/new": OPENING + "select user_id from app.users"})
    assert f"dbt_like_sql/{layer}/new.sql" in str(refusal.value)
    assert "-- decides by: itself | name | section | school | district" in refusal.value.hint


def test_a_value_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="decides by 'sis_id', which is not one of itself"):
        _load(tmp_path, {"audits/new": OPENING + "-- decides by: sis_id\nselect user_id from app.users"})


def test_models_of_staging_and_app_have_no_reach(tmp_path: Path) -> None:
    files = {
        "staging/users": OPENING + "select user_id from clever.users",
        "app/users": OPENING + "insert into app.users select user_id from staging.users",
    }
    assert [model.decides_by for model in _load(tmp_path, files)] == [None, None]


def copied_audit(decides_by: str) -> str:
    """A new audit on equal state_ids, made as docs/architecture.md ("Add a rule") says: from the audit on equal usernames."""
    audit = (SQL / "audits" / "duplicate_usernames.sql").read_text(encoding="utf-8")
    copied = audit.replace("app.normalize_username(username)", "state_id").replace("username is not null", "state_id is not null")
    assert copied.count("state_id") == 2
    return copied.replace("decides by: name", f"decides by: {decides_by}")


@pytest.mark.parametrize("decides_by", ["itself", "name", "section"])
def test_a_model_that_looks_further_than_it_says_is_an_error(tmp_path: Path, decides_by: str) -> None:
    """Its number would be wrong in an incremental plan."""
    users = OPENING + "select clever_id, state_id from clever.users"
    files = {"staging/users": users, "audits/duplicate_state_ids": copied_audit(decides_by)}
    with pytest.raises(PermanentError, match=f"decides by {decides_by}, but it has a window over rows by state_id: it decides by district"):
        _load(tmp_path, files)


@pytest.mark.parametrize("decides_by", ["school", "district"])
def test_a_model_may_look_further(tmp_path: Path, decides_by: str) -> None:
    users = OPENING + "select clever_id, state_id from clever.users"
    files = {"staging/users": users, "audits/duplicate_state_ids": copied_audit(decides_by)}
    assert _load(tmp_path, files).by_name["audits.duplicate_state_ids"].decides_by == decides_by
