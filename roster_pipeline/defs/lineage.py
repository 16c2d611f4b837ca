"""Which tables the asset graph shows, and their edges. Computed from the SQL models; there is no second list.

Belongs here: two simplifications. A model whose table does not exist after the sync is not an asset: the models that read it depend on its
own sources instead. And an edge is left out if a longer path connects the same tables; otherwise nearly every table would have an edge
from every earlier one. Does not belong here: Dagster (`assets.py`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache

from roster_pipeline.database.models import Model, Models

# The pull records findings about every listed resource, so this table flows from all of them. The district object is not listed.
_FINDINGS = "clever.findings"
_DISTRICT = "clever.districts"


@dataclass(frozen=True)
class Lineage:
    """The visible tables, `schema.table` each.

    Attributes:
        pulled: the tables of the resources that Clever returns.
        agreed: tables of `app` that models read and no model writes, because people write them.
        modelled: the models whose table exists after the sync, in run order.
        parents: every visible table -> the nearest visible tables that its data comes from.
    """

    pulled: tuple[str, ...]
    agreed: tuple[str, ...]
    modelled: tuple[Model, ...]
    parents: Mapping[str, tuple[str, ...]]


def lineage(models: Models, tables: Collection[str], resources: Collection[str]) -> Lineage:
    """The visible part of the graph of models.

    Args:
        tables: the tables that the migrations create, `schema.table`.
        resources: the tables that the pull lands, without schema.
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
