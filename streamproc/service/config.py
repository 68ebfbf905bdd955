"""The service's configuration: a small YAML file, read as strictly as a pipeline's.

Loopback only unless secured: `listen` on another address needs tokens or client certificates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from streamproc.pipeline.model import Model

Role = Literal["read", "admin"]
TOKEN_CHARS_MIN: Final = 16


class ListenConfig(Model):
    """The API and the page."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)


class MetricsConfig(Model):
    """Metrics and health: a port of their own that asks for no token."""

    host: str = "127.0.0.1"
    port: int = Field(default=9464, ge=0, le=65535)


class TokenConfig(Model):
    """Who may ask. `token` is a reference (`${file:/run/secrets/…}`) or `sha256:` and the hex digest of one."""

    name: str = Field(min_length=1, max_length=64)
    role: Role
    token: str = Field(repr=False)

    @field_validator("token")
    @classmethod
    def _long_enough(cls, token: str) -> str:
        if len(token) < TOKEN_CHARS_MIN:
            raise ValueError(f"must have at least {TOKEN_CHARS_MIN} characters: what is shorter can be guessed")
        return token


class ClientCertificates(Model):
    """mTLS: clients show a certificate of `ca`. `admins`: common names that may change things; others may read."""

    ca: str
    admins: tuple[str, ...] = ()


class TlsConfig(Model):
    """The server's own certificate, and what it asks of clients."""

    certificate: str
    key: str
    clients: ClientCertificates | None = None


class ServiceConfig(Model):
    """Everything the service can be told. Relative paths are relative to the working directory."""

    listen: ListenConfig = ListenConfig()
    metrics: MetricsConfig = MetricsConfig()
    directory: Path = Path(".streamproc/service")  # wanted state, one folder a pipeline; and local state
    checkpoints: str = "file:.streamproc/checkpoints"  # for pipelines that name no storage of their own
    functions: Path | None = None  # where `call: "shop.py:score"` is looked for; None: no user code
    tokens: tuple[TokenConfig, ...] = ()
    tls: TlsConfig | None = None
    allowed_hosts: tuple[str, ...] = ()  # Host headers beside loopback's and `listen.host`
    audit_log: Path | None = None  # JSON lines; None: with the other logs
    body_bytes_max: Annotated[int, Field(ge=1024, le=16_000_000)] = 1_000_000
