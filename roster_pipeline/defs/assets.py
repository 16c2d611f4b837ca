"""The asset specs: what Dagster shows about each table before anything has run.

Belongs here: keys, groups, descriptions, columns. Does not belong here: which tables there are (`lineage.py`), running them (`sync.py`) and
what a run reports (`report.py`).

A key is `schema/table`. Groups sort in the order in which data flows.
"""

from collections.abc import Iterator, Mapping

import dagster as dg

from roster_pipeline import contracts
from roster_pipeline.database.models import Model
from roster_pipeline.defs.districts import districts
from roster_pipeline.defs.lineage import Lineage

GROUPS = {"clever": "1_clever", "staging": "2_staging", "reconcile": "3_reconcile", "app": "4_app", "ops": "5_ops"}
AGREEMENT_GROUP = "0_agreement"
UNAPPROVED = ("staging", "app")
OWNERS = ["team:data-engineering"]

# `schema.table` -> column -> type.
Columns = Mapping[str, Mapping[str, str]]

_KINDS = {"clever": {"python", "pandas", "pandera"}}
_DISTRICT = "The district object: its name and when Clever last loaded it (`last_sync`). Clever: GET /districts."


def asset_key(name: str) -> dg.AssetKey:
    """`schema.table` -> the asset's key."""
    return dg.AssetKey(name.split("."))


def synced_assets(graph: Lineage, tables: Columns) -> Iterator[dg.AssetSpec]:
    """Every asset that a sync materializes, in run order. `tables` are those that exist after a sync."""
    for name in graph.pulled:
        resource = name.split(".")[1]
        model = contracts.RESOURCES.get(resource)
        yield _spec(
            name,
            graph,
            description=_paragraph(model.__doc__) if model else _DISTRICT,
            metadata={"dagster/column_schema": _contract_schema(resource)} if model else {},
        )
    for each in graph.modelled:
        resource = each.table if each.layer == "staging" else ""
        schema = _contract_schema(resource) if resource in contracts.RESOURCES else _plain_schema(tables[each.name])
        yield _spec(
            each.name,
            graph,
            description=describe(each),
            metadata={"dagster/table_name": each.name, "dagster/column_schema": schema, **source_of(each)},
        )


def agreement_assets(graph: Lineage, tables: Columns) -> Iterator[dg.AssetSpec]:
    """The tables that people write. They are shown because they limit what is rostered (R6.4), and are never materialized."""
    for name in graph.agreed:
        yield dg.AssetSpec(
            asset_key(name),
            description="What was agreed with the district. Written by people (`roster district add`), read by every sync.",
            group_name=AGREEMENT_GROUP,
            kinds={"postgres"},
            owners=OWNERS,
            metadata={"dagster/table_name": name, "dagster/column_schema": _plain_schema(tables[name])},
        )


def describe(model: Model) -> str:
    """A model's header as Markdown. Without the grain of a writing statement, which is that of the rows it writes, not of its table."""
    rules = f"**Rules:** {', '.join(model.rules)}."
    if model.writes:
        return f"{model.description}\n\n{rules}"
    return f"{model.description}\n\n**Grain:** {model.grain}.\n\n{rules}"


def source_of(model: Model) -> dict[str, dg.MetadataValue]:
    """The file of a model, and its SQL."""
    return {
        "file": dg.MetadataValue.text(f"dbt_like_sql/{model.layer}/{model.table}.sql"),
        "sql": dg.MetadataValue.md(f"```sql\n{model.sql}\n```"),
    }


def _spec(name: str, graph: Lineage, *, description: str, metadata: dict[str, object]) -> dg.AssetSpec:
    layer = name.split(".")[0]
    return dg.AssetSpec(
        asset_key(name),
        deps=[asset_key(parent) for parent in graph.parents[name]],
        description=description,
        metadata=metadata,
        group_name=GROUPS[layer],
        kinds=_KINDS.get(layer, {"sql", "postgres"}),
        owners=OWNERS,
        tags={"layer": layer},
        partitions_def=districts,
        # Otherwise Dagster materializes an asset that a run reports nothing about. A first sync that waits for approval writes no table of
        # some layers (R7.6), and a run whose request has been answered meanwhile makes no sync.
        skippable=True,
    )


def _contract_schema(resource: str) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(each.name, each.sql_type, each.description, dg.TableColumnConstraints(nullable=each.nullable))
            for each in contracts.columns(resource)
        ]
    )


def _plain_schema(columns: Mapping[str, str]) -> dg.TableSchema:
    return dg.TableSchema([dg.TableColumn(name, type) for name, type in columns.items()])


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").split())
