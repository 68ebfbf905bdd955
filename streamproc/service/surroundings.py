"""What all pipelines of a service have in common: its configuration, its registry, what it hides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from state.store import shown_url
from streamproc.observability.redaction import Redaction
from streamproc.service.api import ServiceFault
from streamproc.service.config import ServiceConfig
from streamproc.service.definition import Definition, read_definition
from streamproc.service.registry import Record, Registry


class RegistryUnwritable(ServiceFault):
    """503: what is wanted cannot be made durable, so nothing has been done about it."""

    acts = "world"
    retry_helps = True

    def __init__(self, error: OSError) -> None:
        where = "" if error.filename is None else f": {error.filename}"
        detail = f"the service's directory cannot be written: {error.strerror or error}{where}"
        super().__init__(503, "registry-unwritable", "Nothing was changed", detail)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all pipelines of a service have in common."""

    config: ServiceConfig
    registry: Registry
    redaction: Redaction

    async def read(self, name: str, yaml: bytes, parallelism: int | None, record: Record | None) -> Definition:
        """What a file means now; its secrets are hidden from then on."""
        definition = await asyncio.to_thread(
            read_definition,
            name,
            yaml,
            checkpoints=self._storage(record),
            functions=self.config.functions,
            parallelism=parallelism,
        )
        if definition.graph is not None:
            self.redaction.add(definition.graph.secrets)
        return definition

    def _storage(self, record: Record | None) -> str:
        """Of a file that names none. Where it is the configured one, that knows the secrets as they are now; a pipeline
        of another time goes on where its checkpoints are, and would begin anew elsewhere."""
        configured = self.config.checkpoints
        if record is None or record.storage is None or record.storage == shown_url(configured):
            return configured
        return record.storage

    @property
    def work_directory(self) -> Path:
        """Of local state."""
        return self.config.directory / "state"

    async def durably(self, act: Callable[..., None], *arguments: Any) -> None:
        """Do what the registry does. Raises RegistryUnwritable."""
        try:
            await asyncio.to_thread(act, *arguments)
        except OSError as error:
            raise RegistryUnwritable(error) from error
