"""The asset checks: every data-quality rule (R4.4) and every brake (R7.3), with counts and ids and never a value.

Belongs here: the asset of each check, and turning a sync's counts into results. Does not belong here: the rules (`source/rules.py`,
`dbt_like_sql/audits/`) and the brakes (`brake_kinds.py` describes them, `sync/brakes.py` decides). A check only displays: the sync's own
transaction verifies what must hold before a write.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import floor, inf
from typing import Any, Literal

import dagster as dg

from roster_pipeline.brake_kinds import KINDS
from roster_pipeline.database.models import Model, Models
from roster_pipeline.defs.assets import asset_key, describe, source_of
from roster_pipeline.defs.districts import districts
from roster_pipeline.defs.lineage import Lineage
from roster_pipeline.defs.report import Metadata, table
from roster_pipeline.source.rules import rules

# Resource -> its table in `app`. The tables of the other resources have the same name.
_APP_TABLES = {"sections": "classrooms"}
# The asset of an audit of several resources.
_WHOLE_DISTRICT = "staging.districts"

_BRAKE_NUMBERS = """**Rules:** R7.3, R7.4, R7.5, R7.6, R9.2.

**holds**: the number of holds in effect. The other numbers are of the brake that is nearest to its limit, or furthest above it. **acts**:
how many acts it counts. **limit**: the most acts that it lets pass without approval; without a limit, a single act is too many. **active**:
the number of active users that the limit is a share of.

This check only displays. The sync's own transaction decides, whatever starts it.
"""
_NEXT = (
    "`roster holds` shows what waits, and `roster plan DISTRICT` what a sync would do. After `roster approve HOLD --by WHO` the next sync "
    "does exactly this; `roster reject HOLD --by WHO` keeps it held."
)

_COLUMNS = {
    "school_id": "int",
    "role": "string",
    "collection": "string",
    "acts": "int",
    "limit": "int",
    "active": "int",
    "status": "string",
    "hold_id": "int",
}

Outcome = tuple[bool, Metadata]


@dataclass(frozen=True)
class Check:
    """One rule or brake, at one asset.

    Attributes:
        name: the name of the rule, as in `ops.quarantine` and in the file names of the audits; for a brake, `brake_` and its kind.
        asset: the `schema.table` of its asset.
        evaluate: returns whether it passed, and its numbers, from a sync's `counts`.
    """

    name: str
    asset: str
    severity: Literal["warn", "error"]
    description: str
    evaluate: Callable[[Mapping[str, Any]], Outcome]
    metadata: Mapping[str, dg.MetadataValue]

    def spec(self) -> dg.AssetCheckSpec:
        """The check's definition. Partitioned as its asset: without, the last district to run would overwrite every other's status."""
        with warnings.catch_warnings(category=dg.PreviewWarning, action="ignore"):
            return dg.AssetCheckSpec(
                self.name, asset=asset_key(self.asset), description=self.description, metadata=self.metadata, partitions_def=districts
            )

    def result(self, counts: Mapping[str, Any]) -> dg.AssetCheckResult:
        """Its result in a sync with these counts (`ops.syncs.counts`)."""
        passed, numbers = self.evaluate(counts)
        severity = dg.AssetCheckSeverity.ERROR if self.severity == "error" else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(
            asset_key=asset_key(self.asset), check_name=self.name, passed=passed, severity=severity, metadata=numbers
        )


def all_checks(models: Models, graph: Lineage) -> Iterator[Check]:
    """One per quarantine rule (without those that an audit counts), one per audit, one per kind of brake."""
    for rule in rules().values():
        if rule.audit is not None:
            continue
        yield Check(
            name=rule.name,
            asset=f"clever.{rule.resource}",
            severity=rule.severity,
            description=rule.description,
            evaluate=partial(_rule_outcome, "findings", f"{rule.resource}.{rule.name}"),
            metadata={},
        )
    for audit in models.of("audits"):
        yield Check(
            name=audit.table,
            asset=_audited(audit, graph),
            severity=audit.severity,
            description=describe(audit),
            evaluate=partial(_rule_outcome, "audits", audit.table),
            metadata=source_of(audit),
        )
    for kind in KINDS.values():
        yield Check(
            name=f"brake_{kind.name}",
            asset=kind.asset,
            # Only a warning, because a held sync has applied everything else.
            severity="warn",
            description=f"{kind.description}\n\n{_BRAKE_NUMBERS}",
            evaluate=partial(_brake_outcome, kind.name),
            metadata={},
        )


def _rule_outcome(group: str, key: str, counts: Mapping[str, Any]) -> Outcome:
    """The number of records that broke a rule."""
    broken = int(counts[group].get(key, 0))
    return broken == 0, {"count": broken}


def _brake_outcome(kind: str, counts: Mapping[str, Any]) -> Outcome:
    """The holds of one kind of brake. If nothing is held, the acts and the limit of the brake nearest to its limit."""
    held, passed = (_nearest_first(each for each in counts[group] if each["kind"] == kind) for group in ("held", "passed"))
    brakes = [{"collection": None, "limit": None, **each} for each in held + passed]
    numbers: Metadata = {"holds": len(held), "acts": 0}
    if brakes:
        nearest = brakes[0]
        numbers["acts"] = nearest["acts"]
        if nearest["limit"] is not None:
            numbers |= {"limit": nearest["limit"], "active": nearest["active"]}
        numbers["brakes"] = table(brakes, _COLUMNS)
    if held:
        numbers["next"] = _NEXT
    return not held, numbers


def _nearest_first(brakes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sorted by acts as a share of the limit, the largest first. Limits are rounded down: more acts than 13.4 means more than 13."""
    whole = [{**each, "limit": floor(each["limit"])} if "limit" in each else each for each in brakes]
    return sorted(whole, key=lambda each: (each["acts"] / each["limit"] if each.get("limit") else inf, each["acts"]), reverse=True)


def _audited(audit: Model, graph: Lineage) -> str:
    """The asset of an audit: the resource's table in `staging`, or its table in `app` if the audit reads decisions."""
    resources = set(re.findall(r"'(\w+)' as resource\b", audit.sql))
    if len(resources) != 1:
        return _WHOLE_DISTRICT
    (resource,) = resources
    decided = f"app.{_APP_TABLES.get(resource, resource)}"
    candidates = [decided] if any(name.startswith("reconcile.") for name in audit.reads) else [f"staging.{resource}", decided]
    return next((name for name in candidates if name in graph.parents), _WHOLE_DISTRICT)
