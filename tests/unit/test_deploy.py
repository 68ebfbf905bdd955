"""What `docker compose up` and the image promise, as far as it shows without Docker."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from packaging.requirements import Requirement
from typer.core import TyperGroup

import streamproc
from streamproc.cli import app
from streamproc.pipeline.planner import check_pipeline

ROOT = Path(streamproc.__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
PIPELINES = sorted((ROOT / "deploy" / "pipelines").glob("*.yaml"))

_DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
_INSTRUCTION = re.compile(r"^([A-Z]+) (.*)$")


def instructions() -> list[tuple[str, str]]:
    """(name, arguments) in order, continued lines joined."""
    lines = re.sub(r"\\\n", " ", _DOCKERFILE).splitlines()
    return [(match[1], match[2]) for line in lines if (match := _INSTRUCTION.match(line))]


def arguments_of(name: str) -> list[str]:
    return [arguments for instruction, arguments in instructions() if instruction == name]


def mounted(service: dict[str, Any]) -> dict[str, Path]:
    """Path in the container → path here."""
    pairs = (volume.split(":") for volume in service.get("volumes", []))
    return {target: ROOT / source for source, target, *_ in pairs if source.startswith(".")}


def test_the_image_has_a_user_without_rights_and_a_health_check() -> None:
    last_stage = [name for name, _ in instructions()]
    last_stage = last_stage[len(last_stage) - last_stage[::-1].index("FROM") :]
    assert {"USER", "HEALTHCHECK"} <= set(last_stage)
    assert arguments_of("USER") == ["streamproc"]


def test_versions_are_pinned() -> None:
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    images += [arguments.split()[0] for arguments in arguments_of("FROM")]
    for image in images:
        assert re.search(r":v?\d+\.\d+", image), image


def test_every_packaged_folder_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = [source for arguments in arguments_of("COPY") for source in arguments.split()[:-1]]
    assert {*packages, "pyproject.toml", "requirements.lock", project["project"]["readme"], "LICENSE"} <= set(copied)
    for source in copied:
        assert source.startswith(("--from", "/opt")) or (ROOT / source).exists(), source


def test_the_lock_becomes_constraints(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_bytes((ROOT / "requirements.lock").read_bytes())
    (strip,) = re.findall(r"sed .*? > constraints\.txt", " ".join(arguments_of("RUN")))
    subprocess.run(["sh", "-c", strip], cwd=tmp_path, check=True)
    constraints = [Requirement(line) for line in (tmp_path / "constraints.txt").read_text().splitlines()]
    assert {"polars", "aiokafka", "hatchling"} <= {constraint.name for constraint in constraints}
    for constraint in constraints:
        assert str(constraint.specifier).startswith("=="), constraint


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_reached_from_this_machine_only_and_finds_its_files(name: str) -> None:
    service = SERVICES[name]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), port
    for path in mounted(service).values():
        assert path.exists(), path
    named = [volume.split(":")[0] for volume in service.get("volumes", []) if not volume.startswith(".")]
    assert set(named) <= COMPOSE["volumes"].keys()
    if "build" in service:
        assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_every_service_that_stays_has_a_health_check() -> None:
    ends = {
        waited_for
        for service in SERVICES.values()
        if isinstance(service.get("depends_on"), dict)
        for waited_for, how in service["depends_on"].items()
        if how["condition"] == "service_completed_successfully"
    }
    for name, service in SERVICES.items():
        if name in OURS:
            assert "--metrics-port" in service["command"], "the image's health check asks there"
        elif name not in ends:
            assert service["healthcheck"]["test"], name


@pytest.mark.parametrize("name", OURS)
def test_a_command_is_one_that_streamproc_takes(name: str) -> None:
    service = OURS[name]
    command, file, *options = service["command"]
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    known = {option for parameter in group.commands[command].params for option in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known
    (folder,) = (here for there, here in mounted(service).items() if file.startswith(there + "/"))
    assert (folder / Path(file).name).is_file()


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda pipeline: pipeline.stem)
def test_a_pipeline_is_valid_with_what_compose_gives_it(pipeline: Path) -> None:
    environments = [s["environment"] for s in OURS.values() if s["command"][1].endswith("/" + pipeline.name)]
    assert environments, "no service runs it"
    for environment in environments:
        _, faults = check_pipeline(pipeline, environment=environment)
        assert [str(fault) for fault in faults] == []


def test_prometheus_asks_where_the_pipeline_answers() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    targets = [t for job in config["scrape_configs"] for static in job["static_configs"] for t in static["targets"]]
    for target in targets:
        host, _, port = target.partition(":")
        command = SERVICES[host]["command"]
        assert command[command.index("--metrics-port") + 1] == port
        assert command[command.index("--metrics-host") + 1] == "0.0.0.0", "from another container"
    folder = ROOT / "deploy/grafana/provisioning/datasources"
    (source,) = yaml.safe_load((folder / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
