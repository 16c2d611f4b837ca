"""What Dagster is told: the assets, checks, job and sensor by name, and that telling it needs nothing from outside."""

import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import dagster as dg
import pytest

from roster_pipeline import contracts
from roster_pipeline.definitions import defs
from roster_pipeline.defs.sync import sync_assets
from roster_pipeline.sync.run import project_models

PROJECT = Path(__file__).resolve().parents[2]
GRAPH = defs.resolve_asset_graph()

# A new table of staging, reconcile, app or ops is shown by itself. Here it is written down, so that none appears or vanishes unnoticed.
ASSETS = {
    "0_agreement": {"app/agreed_schools", "app/districts"},
    "1_clever": {f"clever/{name}" for name in ("courses", "districts", "schools", "sections", "terms", "users")},
    "2_staging": {f"staging/{name}" for name in ("courses", "districts", "quarantined", "schools", "sections", "terms", "users")},
    "3_reconcile": {f"reconcile/{name}" for name in ("license_reconciliation", "readiness", "soft_deletes", "user_matches")},
    "4_app": {f"app/{name}" for name in ("classrooms", "enrollments", "schools", "user_roles", "users")},
    "5_ops": {"ops/quarantine"},
}


def test_the_assets_by_group() -> None:
    """Key = schema/table; the groups sort in the order in which data flows."""
    found = defaultdict(set)
    for key in GRAPH.get_all_asset_keys():
        found[GRAPH.get(key).group_name].add(key.to_user_string())
    assert found == ASSETS


def test_no_edge_leads_back() -> None:
    """Data flows one way: no asset is drawn from a later group."""
    edges = [(GRAPH.get(parent).group_name, node.group_name) for node in GRAPH.asset_nodes for parent in node.parent_keys]
    assert len(edges) > 20
    assert [edge for edge in edges if str(edge[0]) > str(edge[1])] == []


def test_every_rule_and_audit_is_a_check() -> None:
    """R4.4: by its own name, single-row rules at the resource they are about, partitioned like it."""
    names = {(key.asset_key.to_user_string(), key.name) for key in GRAPH.asset_check_keys}
    assert {(f"clever/{rule.resource}", rule.name) for rule in contracts.rules()} <= names
    assert {audit.table for audit in project_models().of("audits")} <= {name for _, name in names}
    checks = [GRAPH.get(key) for key in GRAPH.asset_check_keys]
    assert {check.partitions_def for check in checks} == {dg.DynamicPartitionsDefinition(name="districts")}


@pytest.mark.parametrize(
    ("audit", "asset"),
    [
        ("section_without_teacher", "staging/sections"),
        ("person_unknown_school", "staging/users"),
        ("section_unknown_school", "app/classrooms"),
        ("enrollment_not_rostered", "app/enrollments"),
        ("duplicate_ids", "staging/districts"),
    ],
)
def test_an_audit_is_shown_where_it_belongs(audit: str, asset: str) -> None:
    """R4.3: of the snapshot at staging, of decisions at app, of several resources at the district."""
    assert [key.asset_key.to_user_string() for key in GRAPH.asset_check_keys if key.name == audit] == [asset]


def test_a_district_is_synced_whole_and_in_one_process() -> None:
    """R11.5: no part of the assets can be launched alone; every step in a process of its own would cost seconds."""
    assert not sync_assets.can_subset
    job = defs.resolve_job_def("sync_district")
    assert job.executor_def.name == "in_process"
    assert [node.name for node in job.nodes] == ["sync"]
    assert "requested_by" in (job.description or "")


def test_the_sensor_runs_from_the_start() -> None:
    """A district that is recorded becomes a partition without anybody switching something on."""
    sensor = defs.resolve_sensor_def("districts_partitions")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING


NOTHING = """
import socket
def refuse(*_args, **_kwargs):
    raise AssertionError("definitions opened a socket")
socket.socket.connect = socket.socket.bind = socket.create_connection = refuse
import dagster as dg
from roster_pipeline.definitions import defs
dg.Definitions.validate_loadable(defs)
"""


def load(project: Path, home: Path) -> "subprocess.CompletedProcess[str]":
    """Load the definitions of a checkout with nothing in the environment but where Python finds it."""
    command = [sys.executable, "-W", "error::dagster.PreviewWarning", "-c", NOTHING]
    return subprocess.run(command, cwd=home, env={"PYTHONPATH": str(project)}, capture_output=True, text=True, check=False)


def test_loading_needs_nothing(tmp_path: Path) -> None:
    """Style rule 10: an empty environment and no network."""
    loaded = load(PROJECT, tmp_path)
    assert loaded.returncode == 0, loaded.stderr


def test_a_model_that_reads_an_unknown_table_does_not_load(tmp_path: Path) -> None:
    """The mistake is named when definitions load, not in the middle of a night."""
    for folder in ("roster_pipeline", "dbt_like_sql"):
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "dbt_like_sql/reconcile/typo.sql").write_text("-- Typo.\n-- grain: one\n-- rules: R1\nselect 1 as one from staging.userz\n")
    loaded = load(tmp_path, tmp_path)
    assert loaded.returncode != 0
    assert "dbt_like_sql/reconcile/typo.sql names staging.userz" in loaded.stderr
