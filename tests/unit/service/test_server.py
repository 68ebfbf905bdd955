"""What keeps the service from starting is for the user to mend, and is found before any pipeline is touched."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from state.failure import Failure
from streamproc.observability.http import PortUnavailable
from streamproc.observability.redaction import Redaction
from streamproc.service.audit import AuditUnavailable
from streamproc.service.auth import Unsecured
from streamproc.service.config import ListenConfig, MetricsConfig, ServiceConfig, TlsConfig
from streamproc.service.server import AddressUnavailable, WrongCertificate, serve

FREE = ListenConfig(port=0)
NO_FILES = TlsConfig(certificate="absent.crt", key="absent.key")


async def refusal(config: ServiceConfig, kind: type[Failure]) -> str:
    with pytest.raises(kind) as raised:
        await serve(config, Redaction(), say=print, listening=print)
    assert raised.value.acts == "user"
    assert not config.directory.exists()
    return str(raised.value)


async def test_an_address_beyond_the_loopback_that_asks_nobody(tmp_path: Path) -> None:
    config = ServiceConfig(listen=ListenConfig(host="0.0.0.0", port=0), directory=tmp_path / "d")
    assert "needs tokens" in await refusal(config, Unsecured)


async def test_ports_that_are_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        api = ServiceConfig(listen=ListenConfig(port=port), directory=tmp_path / "d")
        in_use = f"127.0.0.1:{port}: address already in use; "
        assert f"{in_use}--port names another" in await refusal(api, AddressUnavailable)
        metrics = ServiceConfig(listen=FREE, metrics=MetricsConfig(port=port), directory=tmp_path / "d")
        assert f"{in_use}--metrics-port names another" in await refusal(metrics, PortUnavailable)


async def test_an_address_that_is_nobodys(tmp_path: Path) -> None:
    config = ServiceConfig(listen=ListenConfig(host="127.0.0.1.invalid"), directory=tmp_path / "d")
    with pytest.raises(Unsecured):  # a name that is not known to be the loopback counts as beyond it
        await serve(config, Redaction(), say=print, listening=print)


async def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    absent = ServiceConfig(listen=FREE, tls=NO_FILES, directory=tmp_path / "d")
    assert "absent.crt" in await refusal(absent, WrongCertificate)
    (tmp_path / "broken.pem").write_text("nonsense")
    broken = TlsConfig(certificate=str(tmp_path / "broken.pem"), key=str(tmp_path / "broken.pem"))
    config = ServiceConfig(listen=FREE, tls=broken, directory=tmp_path / "d")
    assert "broken.pem" in await refusal(config, WrongCertificate)


async def test_an_audit_log_that_cannot_be_written(tmp_path: Path) -> None:
    config = ServiceConfig(listen=FREE, audit_log=tmp_path / "absent" / "audit", directory=tmp_path / "d")
    assert "absent/audit" in await refusal(config, AuditUnavailable)
