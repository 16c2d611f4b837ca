"""The files of deploy/ agree with the project and with each other: names, versions, commands, variables, limits.

Does not belong here: what only a cluster or Docker can show. docs/scaling.md says which of that has been tried.
"""

import re
import shlex
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from pydantic import SecretStr
from sqlalchemy import text

from roster_pipeline import cli
from roster_pipeline.database.engine import Database
from roster_pipeline.settings import Settings
from roster_pipeline_tests.test_project import pins

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
# The folder of the project, in the image and for systemd.
HOME = "/opt/roster"

SETTINGS = {name.upper() for name in Settings.model_fields}
SECRETS = {name.upper() for name, field in Settings.model_fields.items() if SecretStr in getattr(field.annotation, "__args__", ())}
# The memory of the shard's own process and its fork server, in addition to the sync (docs/operations.md, "Capacity"), with a reserve.
SHARD_MEGABYTES = 512


def _variables(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", maxsplit=1) for line in lines)


def _manifests() -> list[dict[str, Any]]:
    """Every Kubernetes object that the kustomization lists as a resource."""
    listed = _yaml("kustomization.yaml")["resources"]
    return [document for name in listed for document in yaml.safe_load_all((KUBERNETES / name).read_text(encoding="utf-8"))]


def _yaml(name: str) -> Any:
    return yaml.safe_load((KUBERNETES / name).read_text(encoding="utf-8"))


def _named(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in _manifests() if each["kind"] == kind}


def _pods() -> dict[str, dict[str, Any]]:
    return {name: each["spec"]["template"]["spec"] for name, each in _named("Deployment").items()}


def _containers() -> list[dict[str, Any]]:
    return [container for pod in _pods().values() for container in [*pod.get("initContainers", []), *pod["containers"]]]


def _launcher() -> dict[str, Any]:
    config: dict[str, Any] = _yaml("dagster.yaml")["run_launcher"]["config"]
    return config


# Variables


@pytest.mark.parametrize("file", ["systemd/roster.env.example", "kubernetes/settings.env", "kubernetes/secrets.env.example"])
def test_every_variable_is_used(file: str) -> None:
    """The pipeline or Dagster reads it. Dagster reads its home, and the address of its database in dagster.yaml."""
    variables = _variables(DEPLOY / file)
    assert variables.keys() <= SETTINGS | {"ROSTER_DAGSTER_URL", "DAGSTER_HOME"}
    values: dict[str, Any] = {name.lower(): value for name, value in variables.items() if name in SETTINGS and value}
    Settings(_env_file=None, **values)


def test_no_config_map_has_a_secret() -> None:
    """No ConfigMap has a secret setting of settings.py, or an address with a password."""
    assert not SECRETS & _variables(KUBERNETES / "settings.env").keys()
    secrets = _variables(KUBERNETES / "secrets.env.example")
    assert {"ROSTER_DATABASE_URL", "ROSTER_DAGSTER_URL", "CLEVER_CLIENT_ID", "CLEVER_CLIENT_SECRET"} <= secrets.keys()
    assert secrets["ROSTER_DAGSTER_URL"].startswith("postgresql+psycopg2://")


def test_every_container_and_every_run_has_the_same_environment() -> None:
    generated = {each["name"] for each in _yaml("kustomization.yaml")["configMapGenerator"]}
    launcher = _launcher()
    assert set(launcher["env_config_maps"]) | {launcher["instance_config_map"]} == generated
    for container in _containers():
        sources = [source[kind]["name"] for source in container["envFrom"] for kind in source]
        assert sources == launcher["env_config_maps"] + launcher["env_secrets"], container["name"]


# Dagster's instance


def test_the_instance_differs_from_the_projects_own_only_in_starting_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """dagster.yaml is valid, and has every other value of the project's own file."""
    monkeypatch.setenv("DAGSTER_HOME", str(ROOT))
    own, _ = dagster_instance_config(str(ROOT))
    ours, _ = dagster_instance_config(str(KUBERNETES))
    differences = {key for key in own.keys() | ours.keys() if own.get(key) != ours.get(key)}
    assert differences == {"run_launcher", "compute_logs", "concurrency", "run_monitoring"}
    more_patient = {"start_timeout_seconds": 600, "poll_interval_seconds": 30}
    assert ours["run_monitoring"] == {**own["run_monitoring"], **more_patient}
    slots = ours["concurrency"]["runs"]
    slots["max_concurrent_runs"] = own["concurrency"]["runs"]["max_concurrent_runs"]
    slots["tag_concurrency_limits"][0]["limit"] = own["concurrency"]["runs"]["tag_concurrency_limits"][0]["limit"]
    assert ours["concurrency"] == own["concurrency"]


def test_shards_fill_the_nights_slots_and_leave_one_free() -> None:
    """R11.3: a run for a request always finds a free slot."""
    slots = _yaml("dagster.yaml")["concurrency"]["runs"]
    night = slots["tag_concurrency_limits"][0]["limit"]
    assert night < slots["max_concurrent_runs"]
    assert int(_variables(KUBERNETES / "settings.env")["ROSTER_SHARDS"]) % night == 0


def test_a_shard_has_the_memory_that_its_districts_may_use() -> None:
    """R11.2: the shard stops a district that needs too much memory, before the kernel stops the shard."""
    settings = _variables(KUBERNETES / "settings.env")
    allowed = int(settings.get("ROSTER_DISTRICT_MEMORY_MB", Settings.model_fields["roster_district_memory_mb"].default))
    limit = _launcher()["resources"]["limits"]["memory"]
    assert limit.endswith("Gi")
    assert int(limit.removesuffix("Gi")) * 1024 >= allowed + SHARD_MEGABYTES


# Kubernetes' objects


def test_every_file_is_used() -> None:
    kustomization = _yaml("kustomization.yaml")
    used = set(kustomization["resources"])
    for generator in kustomization["configMapGenerator"]:
        used |= {*generator.get("files", []), *generator.get("envs", [])}
    others = {"kustomization.yaml", "launcher.in", "launcher.lock", "secrets.env.example"}
    assert {file.name for file in KUBERNETES.iterdir()} == used | others


def test_references_between_objects_exist() -> None:
    kustomization, launcher = _yaml("kustomization.yaml"), _launcher()
    assert kustomization["namespace"] == launcher["job_namespace"]
    assert {container["image"] for container in _containers()} == {image["name"] for image in kustomization["images"]}
    accounts = _named("ServiceAccount").keys()
    assert {pod["serviceAccountName"] for pod in _pods().values()} | {launcher["service_account_name"]} == accounts
    (binding,) = _named("RoleBinding").values()
    assert binding["roleRef"]["name"] in _named("Role")
    # The account of a run has no permissions in the cluster.
    assert {subject["name"] for subject in binding["subjects"]} == accounts - {launcher["service_account_name"]}
    for deployment in _named("Deployment").values():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
    for service in _named("Service").values():
        (pod,) = (pod for name, pod in _pods().items() if service["spec"]["selector"] == {"app.kubernetes.io/name": name})
        assert {port["targetPort"] for port in service["spec"]["ports"]} == {port["name"] for port in pod["containers"][0]["ports"]}
    for pod in _pods().values():
        assert {volume["configMap"]["name"] for volume in pod["volumes"]} == {launcher["instance_config_map"]}
    (replacement,) = kustomization["replacements"]
    source = replacement["source"]
    name = re.fullmatch(r"spec\.template\.spec\.containers\.\[name=(\w+)\]\.image", source["fieldPath"])
    assert name is not None
    assert name[1] in [container["name"] for container in _pods()[source["name"]]["containers"]]


def test_one_daemon() -> None:
    """Two daemons on one Dagster database start each other's work."""
    spec = _named("Deployment")["roster-daemon"]["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


def test_containers_fit_the_image() -> None:
    """They use its user, its folder, and its home of Dagster."""
    launcher = _launcher()
    (user,) = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    contexts = [pod["securityContext"] for pod in _pods().values()]
    run = launcher["run_k8s_config"]["pod_spec_config"]["security_context"]
    contexts.append({"runAsNonRoot": run["run_as_non_root"], "runAsUser": run["run_as_user"]})
    assert all(context == {"runAsNonRoot": True, "runAsUser": int(user)} for context in contexts)
    assert f"--uid {user} " in DOCKERFILE
    assert re.findall(r"^WORKDIR (.+)$", DOCKERFILE, re.MULTILINE) == [HOME]
    (home,) = re.findall(r"DAGSTER_HOME=(\S+)", DOCKERFILE)
    assert home == launcher["dagster_home"]
    mounts = {mount["mountPath"] for container in _containers() for mount in container.get("volumeMounts", [])}
    assert mounts == {f"{home}/dagster.yaml"}


# Commands


def _commands() -> list[list[str]]:
    """Every command line of the units and the containers."""
    units = [file.read_text(encoding="utf-8") for file in sorted((DEPLOY / "systemd").glob("*.service"))]
    lines = [shlex.split(line) for unit in units for line in re.findall(r"^Exec\w+=(.+)$", unit, re.MULTILINE)]
    return [[*lines_[0].rsplit("/", 1)[-1:], *lines_[1:]] for lines_ in lines] + [container["command"] for container in _containers()]


@pytest.mark.parametrize("command", _commands(), ids=shlex.join)
def test_commands_can_be_parsed(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, its options and arguments exist, and so do the files that they name."""
    program, *arguments = [word.replace(HOME, str(ROOT)) for word in command]
    assert all(Path(word).exists() for word in arguments if word.startswith("/"))
    seen = []
    monkeypatch.setattr(click.Command, "invoke", lambda command, _: seen.append(command.name))
    if program == "roster":
        assert arguments[0] in cli.COMMANDS
        cli.roster.main(arguments, standalone_mode=False)
    elif program == "python":
        import dagster_webserver.cli

        from roster_pipeline.defs import webserver

        monkeypatch.setattr("sys.argv", [])
        monkeypatch.setattr(dagster_webserver.cli, "create_app_from_workspace_process_context", None)
        assert arguments[:2] == ["-m", webserver.__name__]
        with pytest.raises(SystemExit, match="0"):
            webserver.main(arguments[2:])
        # Everybody who may look at it may do nothing with it.
        assert "--read-only" in sys.argv
    else:
        from dagster._daemon.cli import create_dagster_daemon_cli

        assert program == "dagster-daemon"
        create_dagster_daemon_cli().main(arguments, standalone_mode=False)
    assert seen
    assert program in {script.name for script in entry_points(group="console_scripts")} | {"roster", "python"}


# The image


def test_the_image_has_files_that_exist_and_are_not_ignored() -> None:
    """The build ignores everything that must not be in an image: `.env`, data, history."""
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    seen = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    assert "*" in ignore
    copied = [path.rstrip("/") for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for path in line.split()[:-1]]
    assert sorted(copied) == sorted(seen)
    assert all((ROOT / path).exists() for path in copied)


def test_the_project_supports_the_images_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest, highest = re.findall(r"3\.(\d+)", project["requires-python"])
    (minor,) = re.findall(r"^FROM python:3\.(\d+)-", DOCKERFILE, re.MULTILINE)
    assert int(lowest) <= int(minor) < int(highest)


def test_the_launcher_fits_the_projects_dagster() -> None:
    """No package has different versions in the two locks, and the launcher is of the project's Dagster release."""
    project, launcher = pins(ROOT / "requirements.lock"), pins(KUBERNETES / "launcher.lock")
    assert launcher["dagster-k8s"] == project["dagster-postgres"]
    assert pins(KUBERNETES / "launcher.in").items() <= launcher.items()
    assert {name: version for name, version in launcher.items() if project.get(name, version) != version} == {}
    assert launcher.keys() & project.keys() >= {"dagster"}


# docs/scaling.md


def test_the_page_names_every_key_without_the_district(database: Database) -> None:
    """These keys would have to change before a table could be partitioned or distributed by district."""
    with database.engine.connect() as connection:
        found = connection.execute(
            text("""
                select indrelid::regclass::text, string_agg(attname, ', ' order by array_position(indkey::int2[], attnum))
                from pg_index
                join pg_attribute on attrelid = indrelid and attnum = any (indkey)
                join pg_class on pg_class.oid = indrelid
                where (indisunique or indisexclusion)
                    and relnamespace::regnamespace::text in ('app', 'staging', 'reconcile', 'ops')
                    and exists (select from pg_attribute where attrelid = indrelid and attname = 'district_id')
                group by indexrelid, indrelid
                having not bool_or(attname = 'district_id')
            """)
        )
        keys = {(table, columns) for table, columns in found}
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    named = {
        (table, columns)
        for table, cell in re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| (`.*?) \|", page, re.MULTILINE)
        for columns in re.findall(r"`([^`]+)`", cell)
    }
    assert named == keys
