"""The checks: every data-quality rule as Dagster shows it, with a count and never a value (R4.4).

Belongs here: which asset a rule is shown at, and turning a sync's counts into results. Does not belong here: the rules (`contracts.py`,
`dbt_like_sql/audits/`). A check is the display; what must hold before a write is verified in the sync's own transaction.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
        count: where `ops.syncs.counts` has how often the rule was broken: the key of the group, and in the group.
    """

    name: str
    asset: str
    severity: Literal["warn", "error"]
    description: str
    count: tuple[Literal["findings", "audits"], str]
    metadata: Mapping[str, dg.MetadataValue]

    def spec(self) -> dg.AssetCheckSpec:
        """The check's definition. Partitioned as its asset: without, the last district to run would overwrite every other's status."""
        with warnings.catch_warnings(category=dg.PreviewWarning, action="ignore"):
            return dg.AssetCheckSpec(
                self.name, asset=asset_key(self.asset), description=self.description, metadata=self.metadata, partitions_def=districts
            )

    def result(self, counts: Mapping[str, Any]) -> dg.AssetCheckResult:
        """How the rule fared in a sync with these counts (`ops.syncs.counts`)."""
        group, key = self.count
        broken = int(counts[group].get(key, 0))
        severity = dg.AssetCheckSeverity.ERROR if self.severity == "error" else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(
            asset_key=asset_key(self.asset), check_name=self.name, passed=broken == 0, severity=severity, metadata={"count": broken}
        )


def all_checks(models: Models, graph: Lineage) -> Iterator[Check]:
    """One per single-row rule, then one per audit."""
    for rule in contracts.rules():
        yield Check(
            name=rule.name,
            asset=f"clever.{rule.resource}",
            severity=rule.severity,
            description=rule.description,
            count=("findings", f"{rule.resource}.{rule.name}"),
            metadata={},
        )
    for audit in models.of("audits"):
        yield Check(
            name=audit.table,
            asset=_audited(audit, graph),
            severity=audit.severity,
            description=describe(audit),
            count=("audits", audit.table),
            metadata=source_of(audit),
        )


def _audited(audit: Model, graph: Lineage) -> str:
    """The asset an audit is about: of the resource it returns, the snapshot; or what became of it, where it reads decisions."""
    resources = set(re.findall(r"'(\w+)' as resource\b", audit.sql))
    if len(resources) != 1:
        return _WHOLE_DISTRICT
    (resource,) = resources
    decided = f"app.{_APP_TABLES.get(resource, resource)}"
    candidates = [decided] if any(name.startswith("reconcile.") for name in audit.reads) else [f"staging.{resource}", decided]
    return next((name for name in candidates if name in graph.parents), _WHOLE_DISTRICT)
