"""What `docker compose up` and the image promise, as far as it shows without Docker."""

from __future__ import annotations

import os
import re
import shutil
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
from streamproc.service.config_file import load_service_config
from streamproc.service.server import ANSWERS_SECONDS_MAX
from streamproc.service.service import CLOSE_S

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


def test_what_is_copied_is_sent_to_the_builder() -> None:
    """.dockerignore leaves everything out, then lets in what it names."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = {
        source
        for arguments in arguments_of("COPY")
        if not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    }
    assert sources == sent


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


def ends() -> set[str]:
    """Services that do something and end."""
    waited_for = {
        name
        for service in SERVICES.values()
        if isinstance(service.get("depends_on"), dict)
        for name, how in service["depends_on"].items()
        if how["condition"] == "service_completed_successfully"
    }
    return waited_for | {name for name, service in SERVICES.items() if service.get("healthcheck") == {"disable": True}}


def test_every_service_that_stays_has_a_health_check() -> None:
    for name, service in SERVICES.items():
        if name in ends():
            assert "restart" not in service, name
        elif name in OURS:
            command, file, *options = service["command"]
            served = (
                "--metrics-port" in options or config_in(SERVICES[name], [file, *options])["metrics"]["port"] == 9464
            )
            assert served, f"{name} {command}: the image's health check asks there"
        else:
            assert service["healthcheck"]["test"], name


def config_in(service: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    """The configuration that `serve --config FILE` is given."""
    path = arguments[arguments.index("--config") + 1]
    config: dict[str, Any] = yaml.safe_load(mounted(service)[path].read_text())
    return config


@pytest.mark.parametrize("name", OURS)
def test_a_command_is_one_that_streamproc_takes(name: str) -> None:
    service = OURS[name]
    command, *arguments = service["command"]
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    known = {option for parameter in group.commands[command].params for option in parameter.opts}
    assert {option for option in arguments if option.startswith("--")} <= known
    files = [argument for argument in arguments if argument.startswith("/")]
    assert files
    for file in files:
        (here,) = (
            h / file[len(there) :].lstrip("/") for there, h in mounted(service).items() if file.startswith(there)
        )
        assert here.is_file()


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda pipeline: pipeline.stem)
def test_a_pipeline_is_valid_with_what_compose_gives_it(pipeline: Path) -> None:
    runs = [s for s in OURS.values() if s["command"][1].endswith("/" + pipeline.name)]
    assert runs, "no service runs it"
    for service in runs:
        environment = SERVICES["streamproc" if service["command"][0] == "apply" else "producer"]["environment"]
        _, faults = check_pipeline(pipeline, environment=environment)
        assert [str(fault) for fault in faults] == []


def test_everything_has_the_same_time_to_stop() -> None:
    """What docs/service.md asks of a supervisor, and more than the service takes."""
    (stateful_set,) = (m for m in manifests() if m["kind"] == "StatefulSet")
    unit = (ROOT / "deploy" / "systemd" / "streamproc.service").read_text()
    given = {
        int(SERVICES["streamproc"]["stop_grace_period"].removesuffix("s")),
        stateful_set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"],
        int(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]),
    }
    assert given == {120}
    assert min(given) > CLOSE_S + ANSWERS_SECONDS_MAX


def test_configurations_are_where_their_programs_look() -> None:
    prometheus = mounted(SERVICES["prometheus"])["/etc/prometheus"]
    assert (prometheus / "prometheus.yml").is_file(), "the image's --config.file"
    for rules in yaml.safe_load((prometheus / "prometheus.yml").read_text())["rule_files"]:
        assert (prometheus / rules).is_file()
    grafana = mounted(SERVICES["grafana"])
    provisioning = grafana["/etc/grafana/provisioning"]  # where the image looks
    assert {folder.name for folder in provisioning.iterdir()} == {"dashboards", "datasources"}
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (grafana[str(home.parent)] / home.name).is_file()


def test_kustomize_takes_the_manifests() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl")
    done = subprocess.run([kubectl, "kustomize", "deploy/k8s"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rendered = list(yaml.safe_load_all(done.stdout))
    assert sorted(m["kind"] for m in rendered) == [
        "ConfigMap",
        "NetworkPolicy",
        "Service",
        "Service",
        "StatefulSet",
    ]
    (config,) = (m["metadata"]["name"] for m in rendered if m["kind"] == "ConfigMap")
    (stateful_set,) = (m for m in rendered if m["kind"] == "StatefulSet")
    volumes = stateful_set["spec"]["template"]["spec"]["volumes"]
    assert config in {volume.get("configMap", {}).get("name") for volume in volumes}
    # Clients of the service need their label only: kustomize adds the service's own to `matchLabels`.
    (policy,) = (m["spec"] for m in rendered if m["kind"] == "NetworkPolicy")
    assert policy["podSelector"]["matchLabels"] == stateful_set["spec"]["selector"]["matchLabels"]
    (client,) = (peer for rule in policy["ingress"] for peer in rule["from"] if "podSelector" in peer)
    assert client["podSelector"] == {
        "matchExpressions": [{"key": "streamproc-client", "operator": "In", "values": ["true"]}]
    }


def test_prometheus_asks_where_the_service_answers() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    targets = {t for job in config["scrape_configs"] for static in job["static_configs"] for t in static["targets"]}
    metrics = config_in(SERVICES["streamproc"], SERVICES["streamproc"]["command"])["metrics"]
    assert metrics["host"] == "0.0.0.0", "from another container"
    assert f"streamproc:{metrics['port']}" in targets
    folder = ROOT / "deploy/grafana/provisioning/datasources"
    (source,) = yaml.safe_load((folder / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"


@pytest.mark.parametrize("file", ["deploy/service.yaml", "deploy/k8s/service.yaml"])
def test_the_service_takes_its_configuration(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-that-nobody-guesses")
    monkeypatch.setenv("STREAMPROC_TOKEN", token.read_text())
    here = tmp_path / "service.yaml"
    here.write_text((ROOT / file).read_text().replace("/run/secrets/streamproc/operator", str(token)))
    config = load_service_config(here).config
    assert config.tokens[0].role == "admin"
    assert config.metrics.port == 9464


def manifests() -> list[dict[str, Any]]:
    folder = ROOT / "deploy" / "k8s"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return [m for name in kustomization["resources"] for m in yaml.safe_load_all((folder / name).read_text())]


def test_kubernetes_runs_one_replica_without_rights_on_a_volume() -> None:
    (stateful_set,) = (m for m in manifests() if m["kind"] == "StatefulSet")
    assert stateful_set["spec"]["replicas"] == 1
    pod = stateful_set["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 10001, "the user of the image"
    assert "useradd --create-home --uid 10001" in _DOCKERFILE
    assert container["securityContext"]["readOnlyRootFilesystem"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in stateful_set["spec"]["volumeClaimTemplates"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == volumes
    config = yaml.safe_load((ROOT / "deploy" / "k8s" / "service.yaml").read_text())
    for path in (config["directory"], config["checkpoints"].removeprefix("file:")):
        assert any(path.startswith(mount) and name == "state" for mount, name in mounts.items()), path
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": config["listen"]["port"], "metrics": config["metrics"]["port"]}
    for manifest in manifests():
        for port in manifest["spec"].get("ports", []):
            assert port["targetPort"] in ports


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        assert os.environ.get("CI") != "true", "systemd-analyze is not installed"
        pytest.skip("systemd-analyze is not installed")
    unit = (ROOT / "deploy" / "systemd" / "streamproc.service").read_text()
    (tmp_path / "streamproc.service").write_text(unit.replace("/opt/streamproc/bin/streamproc", "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", tmp_path / "streamproc.service"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
