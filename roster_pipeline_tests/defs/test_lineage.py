"""Which tables the asset graph shows, and its edges."""

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


def test_temporary_tables_are_not_assets() -> None:
    """Their readers depend on the sources of the temporary table instead."""
    assert [each.name for each in GRAPH.modelled] == ["staging.users", "reconcile.plan", "app.users", "ops.quarantine"]
    assert GRAPH.parents["reconcile.plan"] == ("app.districts", "staging.users")


def test_an_edge_is_left_out_if_there_is_a_longer_path() -> None:
    """app.users depends on staging.users too, through the plan."""
    assert GRAPH.parents["app.users"] == ("reconcile.plan",)


def test_only_tables_that_no_model_writes_are_agreed() -> None:
    """Models read app.users too, with its rows before the sync. That is no edge, because it would lead to an earlier layer."""
    assert GRAPH.agreed == ("app.districts",)
    assert all("app.users" not in parents for parents in GRAPH.parents.values())


def test_findings_flow_from_every_listed_resource() -> None:
    """R4.2: terms can have findings, although no model reads terms here. The district object is not a listed resource."""
    assert GRAPH.parents["ops.quarantine"] == ("app.districts", "clever.terms", "staging.users")
