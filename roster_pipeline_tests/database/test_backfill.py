"""What a migration fills in, in a database that an older release has used.

Does not belong here: that migrations run at all (`test_migrate.py`).
"""

from alembic import command
from sqlalchemy import Connection, text

from roster_pipeline.database import migrate as module
from roster_pipeline.database.engine import Database


def upgrade(connection: Connection, revision: str) -> None:
    config = module._config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def test_what_clever_gave_is_known_after_the_upgrade(empty_database: Database) -> None:
    """R5.3, R7.2: from the last snapshot, so that the next sync need not write everybody; else the username, if Clever gave it."""
    with empty_database.engine.begin() as connection:
        connection.execute(text(f"create schema if not exists {module.VERSION_SCHEMA}"))
        upgrade(connection, "0005")
        connection.execute(
            text("insert into app.districts (clever_id, name, profile, domain) values ('d1', 'D', 'typing_agent', 'd.example')")
        )
        district = connection.execute(text("select district_id from app.districts")).scalar_one()
        users = [
            ("shared", "ann", "clever"),
            ("an admin", "an admin", "clever"),
            ("nothing given", "nothing given", "clever"),
            ("refused", "refused", "clever"),
            ("left", "ida", "clever"),
            ("left without", "LEFT without", "clever"),
            (None, "handmade", "app"),
        ]
        for clever_id, username, source in users:
            connection.execute(
                text("insert into app.users (district_id, clever_id, username, source) values (:d, :c, :u, :s)"),
                {"d": district, "c": clever_id, "u": username, "s": source},
            )
        for clever_id, given in [("shared", "Ann"), ("an admin", "sam"), ("nothing given", None), ("refused", "ann")]:
            connection.execute(
                text(
                    "insert into staging.users (district_id, clever_id, first_name, last_name, username, is_district_admin)"
                    " values (:d, :c, 'A', 'B', :u, false)"
                ),
                {"d": district, "c": clever_id, "u": given},
            )
        connection.execute(
            text(
                "insert into reconcile.user_matches (district_id, clever_id, decision, rule, is_admin_held, is_waiting)"
                " values (:d, 'shared', 'relink', 'username_and_identity', false, false)"
            ),
            {"d": district},
        )
        upgrade(connection, "head")
        found = connection.execute(text("select coalesce(clever_id, 'none'), district_username from app.users order by user_id")).all()
        rule = connection.execute(text("select rule from reconcile.user_matches")).scalar_one()
    assert dict(map(tuple, found)) == {
        "shared": "Ann",
        "an admin": "sam",
        "nothing given": None,
        "refused": "ann",
        "left": "ida",
        "left without": None,
        "none": None,
    }
    assert rule == "two_of_three"
