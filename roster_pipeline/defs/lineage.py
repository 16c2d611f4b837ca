"""Which tables the asset graph shows, and what flows into what. Computed from the SQL models; there is no second list.

Belongs here: folding. A model whose table is gone after the sync is no asset: whoever reads it depends on what it was made from. An edge
that a longer way makes too is left out, or nearly everything would be drawn from nearly everything.
Does not belong here: Dagster (`assets.py`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache

from roster_pipeline.database.models import Model, Models

# The pull notes what is broken in every listed resource, so this table flows from all of them; the district object is no list.
_FINDINGS = "clever.findings"
_DISTRICT = "clever.districts"


@dataclass(frozen=True)
class Lineage:
    """The visible tables, `schema.table` each.

    Attributes:
        pulled: what Clever is asked for.
        agreed: tables of `app` that models read and none writes: people write them.
        modelled: the models whose table outlives the sync, in run order.
        parents: every visible table -> the nearest visible tables its data flows from; the others are reached through those.
    """

    pulled: tuple[str, ...]
    agreed: tuple[str, ...]
    modelled: tuple[Model, ...]
    parents: Mapping[str, tuple[str, ...]]


def lineage(models: Models, tables: Collection[str], resources: Collection[str]) -> Lineage:
    """The visible part of the graph of models.

    Args:
        tables: those that the migrations make, `schema.table`.
        resources: what the pull lands, without schema.
    """
    written = {name for model in models for name in model.writes}
    read = {name for model in models for name in model.reads}
    agreed = {name for name in read if name.startswith("app.") and name in tables and name not in written}
    pulled = tuple(f"clever.{resource}" for resource in resources)
    modelled = tuple(model for model in models if model.name in tables)
    visible = {*pulled, *agreed, *(model.name for model in modelled)}

    def sources(name: str) -> Collection[str]:
        if name == _FINDINGS:
            return [each for each in pulled if each != _DISTRICT]
        model = models.by_name.get(name)
        return () if model is None else models.upstream(model) | (model.reads & agreed)

    @cache
    def parents(name: str) -> frozenset[str]:
        return frozenset[str]().union(*({each} if each in visible else parents(each) for each in sources(name)))

    @cache
    def ancestors(name: str) -> frozenset[str]:
        return parents(name).union(*(ancestors(each) for each in parents(name)))

    def nearest(name: str) -> tuple[str, ...]:
        return tuple(sorted(parents(name) - frozenset[str]().union(*(ancestors(each) for each in parents(name)))))

    return Lineage(pulled=pulled, agreed=tuple(sorted(agreed)), modelled=modelled, parents={name: nearest(name) for name in visible})
