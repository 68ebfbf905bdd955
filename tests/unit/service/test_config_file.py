"""The configuration file: read as strictly as a pipeline's, and no secret in what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamproc.pipeline.faults import InvalidPipeline
from streamproc.service.config import ServiceConfig
from streamproc.service.config_file import LoadedConfig, load_service_config

DIGEST = "sha256:" + "0a" * 32


def loaded(tmp_path: Path, text: str, **environment: str) -> LoadedConfig:
    file = tmp_path / "service.yaml"
    file.write_text(text)
    return load_service_config(file, environment=environment)


def faults(tmp_path: Path, text: str, **environment: str) -> list[str]:
    with pytest.raises(InvalidPipeline) as raised:
        loaded(tmp_path, text, **environment)
    assert all(fault.file.endswith("service.yaml") for fault in raised.value.faults)
    return [f"{fault.line}: {fault.path}: {fault.message}" for fault in raised.value.faults]


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_nothing_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, text) == LoadedConfig(ServiceConfig())


def test_everything_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-a-mounted-secret\n")
    found = loaded(
        tmp_path,
        f"""
listen: {{host: 0.0.0.0, port: 8443}}
metrics: {{host: 0.0.0.0, port: 9000}}
directory: data/service
checkpoints: s3://bucket/checkpoints
functions: functions
tokens:
  - {{name: ci, role: admin, token: "${{file:token}}"}}
  - {{name: grafana, role: read, token: "${{env:READ}}"}}
  - {{name: ops, role: admin, token: "{DIGEST}"}}
tls: {{certificate: tls.crt, key: tls.key, clients: {{ca: ca.crt, admins: [ada]}}}}
allowed_hosts: [streams.example]
audit_log: audit.jsonl
body_bytes_max: 2000000
""",
        READ="from-the-environment",
    )
    config = found.config
    assert config.listen.port == 8443
    assert config.directory == Path("data/service")
    assert [one.token for one in config.tokens] == ["from-a-mounted-secret", "from-the-environment", DIGEST]
    assert config.tls is not None
    assert config.tls.clients is not None
    assert config.tls.clients.admins == ("ada",)
    assert {"from-a-mounted-secret", "from-the-environment", DIGEST} <= set(found.secrets)
    assert found.warnings == ()
    assert "from-a-mounted" not in repr(config)


def test_all_faults_come_at_once_at_their_places(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """listen: {host: 0.0.0.0, prot: 90}
tokens:
  - {name: a, role: root, token: "0123456789abcdef"}
body_bytes_max: 3
allowed_hosts: localhost
""",
    )
    assert [fault.partition(": ")[0] for fault in found] == ["1", "3", "4", "5"]
    assert "unknown field 'prot'" in found[0]
    assert "read or admin" in found[1]


def test_a_variable_that_is_not_set_hides_no_other_fault(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """listen: {prot: 90}
tokens:
  - {name: a, role: root, token: "${env:NOT_SET}"}
  - {name: b, role: read, token: "${file:absent}"}
""",
    )
    assert [fault.partition(": ")[0] for fault in found] == ["1", "3", "3", "4"]
    assert "unknown field 'prot'" in found[0]
    assert "read or admin" in found[1]
    assert "NOT_SET is not set" in found[2]


def test_a_token_that_can_be_guessed_is_refused_and_not_shown(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, 'tokens: [{name: a, role: read, token: "${env:T}"}]', T="hunter2")
    assert "at least 16 characters" in fault
    assert "hunter2" not in fault


def test_tokens_have_names_of_their_own_and_whole_digests(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        f"""tokens:
  - {{name: a, role: read, token: "{DIGEST}"}}
  - {{name: a, role: read, token: "{DIGEST[:-1]}"}}
""",
    )
    assert [fault.partition(": ")[0] for fault in found] == ["2", "3", "3"]
    assert "64 hexadecimal digits" in found[2]


def test_a_token_in_the_file_itself_is_warned_of(tmp_path: Path) -> None:
    (warning,) = loaded(tmp_path, 'tokens: [{name: a, role: read, token: "written-in-the-file"}]').warnings
    assert "the token itself stands in the file" in warning
    assert "written-in-the-file" not in warning


@pytest.mark.parametrize(
    ("text", "said"),
    [("- a", "mapping"), ("a: [", "YAML"), ("listen: {}\nlisten: {}", "twice"), ("tokens: *x", "aliases")],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert any(said in fault for fault in faults(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidPipeline, match="cannot be read"):
        load_service_config(tmp_path / "absent.yaml")
