"""The checks: every data-quality rule as Dagster shows it, with a count and never a value (R4.4).

Belongs here: which asset a rule is shown at, and turning a sync's counts into results. Does not belong here: the rules (`contracts.py`,
`dbt_like_sql/audits/`). A check is the display; what must hold before a write is verified in the sync's own transaction.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import dagster as dg

from roster_pipeline import contracts
from roster_pipeline.database.models import Model, Models
from roster_pipeline.defs.assets import asset_key, describe, source_of
from roster_pipeline.defs.districts import districts
from roster_pipeline.defs.lineage import Lineage

# What an audit calls a resource of Clever -> the table of `app` that holds it; the others are called the same.
_APP_TABLES = {"sections": "classrooms"}
# An audit of several resources is one of the district as a whole.
_WHOLE_DISTRICT = "staging.districts"


@dataclass(frozen=True)
class Check:
    """One rule at one asset.

    Attributes:
        name: the rule's, as in `ops.quarantine` and the file names of the audits.
        asset: `schema.table` it is shown at.
        count: how often the rule was broken, from a sync's `counts`.
    """

    name: str
    asset: str
    severity: Literal["warn", "error"]
    description: str
    count: Callable[[Mapping[str, Any]], int]
    metadata: Mapping[str, dg.MetadataValue]

    def spec(self) -> dg.AssetCheckSpec:
        """The check's definition. Partitioned as its asset: without, the last district to run would overwrite every other's status."""
        with warnings.catch_warnings(category=dg.PreviewWarning, action="ignore"):
            return dg.AssetCheckSpec(
                self.name, asset=asset_key(self.asset), description=self.description, metadata=self.metadata, partitions_def=districts
            )

    def result(self, counts: Mapping[str, Any]) -> dg.AssetCheckResult:
        """How the rule fared in a sync with these counts (`ops.syncs.counts`)."""
        broken = self.count(counts)
        severity = dg.AssetCheckSeverity.ERROR if self.severity == "error" else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(
            asset_key=asset_key(self.asset), check_name=self.name, passed=broken == 0, severity=severity, metadata={"count": broken}
        )


def all_checks(models: Models, graph: Lineage) -> Iterator[Check]:
    """One per single-row rule, one per audit, and whether the sync was held."""
    for rule in contracts.rules():
        yield Check(
            name=rule.name,
            asset=f"clever.{rule.resource}",
            severity=rule.severity,
            description=rule.description,
            count=partial(_counted, "findings", f"{rule.resource}.{rule.name}"),
            metadata={},
        )
    for audit in models.of("audits"):
        yield Check(
            name=audit.table,
            asset=_audited(audit, graph),
            severity=audit.severity,
            description=describe(audit),
            count=partial(_counted, "audits", audit.table),
            metadata=source_of(audit),
        )
    yield Check(
        name="nothing_held",
        asset=_WHOLE_DISTRICT,
        severity="warn",
        description="Brakes that hold something back until it is approved: `roster holds` shows them (R7.4).",
        count=lambda counts: len(counts["held"]),
        metadata={},
    )


def _counted(group: str, key: str, counts: Mapping[str, Any]) -> int:
    return int(counts[group].get(key, 0))


def _audited(audit: Model, graph: Lineage) -> str:
    """The asset an audit is about: of the resource it returns, the snapshot; or what became of it, where it reads decisions."""
    resources = set(re.findall(r"'(\w+)' as resource\b", audit.sql))
    if len(resources) != 1:
        return _WHOLE_DISTRICT
    (resource,) = resources
    decided = f"app.{_APP_TABLES.get(resource, resource)}"
    candidates = [decided] if any(name.startswith("reconcile.") for name in audit.reads) else [f"staging.{resource}", decided]
    return next((name for name in candidates if name in graph.parents), _WHOLE_DISTRICT)
