"""Which tables are shown, and what is drawn from what."""

from collections.abc import Iterable
from typing import cast

from roster_pipeline.database.models import Layer, Model, Models
from roster_pipeline.defs.lineage import lineage


def model(name: str, reads: Iterable[str], writes: Iterable[str] = ()) -> Model:
    layer, table = name.split(".")
    # The names below begin with a layer.
    return Model(cast("Layer", layer), table, "", "", "", (), (), "warn", "itself", frozenset(reads), frozenset(writes))


TABLES = ["staging.users", "reconcile.plan", "app.districts", "app.users", "ops.quarantine"]
MODELS = Models(
    (
        model("staging.users", ["clever.users"]),
        model("reconcile.people", ["staging.users", "app.districts", "app.users"]),
        model("reconcile.plan", ["reconcile.people"]),
        model("reconcile.user_changes", ["reconcile.plan", "reconcile.people"]),
        model("app.users", ["reconcile.user_changes"], writes=["app.users", "ops.changes"]),
        model("ops.quarantine", ["clever.findings", "reconcile.people"], writes=["ops.quarantine"]),
    ),
    {},
)
GRAPH = lineage(MODELS, TABLES, ["users", "terms", "districts"])


def test_tables_that_do_not_outlive_the_sync_are_folded() -> None:
    """What they are made from stands in for them; they are no assets."""
    assert [each.name for each in GRAPH.modelled] == ["staging.users", "reconcile.plan", "app.users", "ops.quarantine"]
    assert GRAPH.parents["reconcile.plan"] == ("app.districts", "staging.users")


def test_an_edge_that_a_longer_way_makes_too_is_left_out() -> None:
    """app.users comes from staging.users as well, by way of the plan."""
    assert GRAPH.parents["app.users"] == ("reconcile.plan",)


def test_tables_that_people_write_are_told_from_those_a_sync_writes() -> None:
    """app.users is read too, as it was before the sync: no edge leads from a later layer to an earlier one."""
    assert GRAPH.agreed == ("app.districts",)
    assert all("app.users" not in parents for parents in GRAPH.parents.values())


def test_findings_flow_from_every_listed_resource() -> None:
    """R4.2: a term can be broken too, though no model reads terms here; the district object is no list."""
    assert GRAPH.parents["ops.quarantine"] == ("app.districts", "clever.terms", "staging.users")
