"""Every change that is asked for leaves a line before it is made and another with what came of it.

With a file, a change whose first line cannot be written is not made (503): what happened is in the log, or has
not happened. Lines say who, what and the body's digest; never the body, never a token.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
from starlette.requests import Request

from state.failure import Failure
from streamproc.service.auth import Caller
from streamproc.service.problem import Refusal

_TEXT_CHARS_MAX: Final = 512
_OWNER_ONLY: Final = 0o600

log = structlog.get_logger("streamproc.audit")


class AuditUnavailable(Failure):
    """The audit log cannot be written."""

    acts = "user"


@dataclass(frozen=True, slots=True)
class Entry:
    """A request to change something."""

    id: str
    who: str | None  # None: nobody said
    role: str | None
    via: str | None
    address: str
    method: str
    path: str
    plan: str | None
    body_bytes: int | None = None  # None: not read
    body_sha256: str | None = None

    @classmethod
    def of(cls, request: Request) -> Entry:
        """As far as it is known before the body is read."""
        caller = request.scope["state"].get("caller")
        known = caller if isinstance(caller, Caller) else None
        plan = request.query_params.get("plan")
        return cls(
            id=uuid.uuid4().hex,
            who=known.name if known else None,
            role=known.role if known else None,
            via=known.via if known else None,
            address=request.client.host if request.client is not None else "",
            method=request.method,
            path=request.url.path[:_TEXT_CHARS_MAX],
            plan=None if plan is None else plan[:_TEXT_CHARS_MAX],
        )

    def holding(self, body: bytes) -> Entry:
        """With the body's size and digest."""
        return replace(self, body_bytes=len(body), body_sha256=hashlib.sha256(body).hexdigest())


class Audit(Protocol):
    """Where entries go."""

    async def begins(self, entry: Entry) -> None:
        """Before the change. Raises Refusal 503 where it cannot be written."""

    async def ended(self, entry: Entry, status: int, seconds: float) -> None:
        """After it, or after its refusal. Never raises."""


class LoggedAudit:
    """With the other logs, as `streamproc.audit`."""

    async def begins(self, entry: Entry) -> None:
        """Nothing: the line that counts comes with the status."""

    async def ended(self, entry: Entry, status: int, seconds: float) -> None:
        """One line."""
        log.info("change", **_shown(entry), status=status, seconds=round(seconds, 3))


class AuditFile:
    """JSON lines, appended and synced. The file is opened for each, so that it may be moved away (logrotate)."""

    def __init__(self, path: Path) -> None:
        """Raises AuditUnavailable where it cannot be written."""
        self._path = path
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="audit")
        try:
            self._append(b"")
        except OSError as error:
            raise AuditUnavailable(f"the audit log {path} cannot be written: {error.strerror or error}") from error

    async def begins(self, entry: Entry) -> None:
        """The first line."""
        try:
            await self._write(entry, {"event": "begin"})
        except OSError as error:
            log.error("the audit log cannot be written; nothing is changed", path=str(self._path), exc_info=error)
            detail = "the audit log cannot be written, so nothing is changed"
            raise Refusal(503, "audit-unavailable", "The audit log cannot be written", detail) from error

    async def ended(self, entry: Entry, status: int, seconds: float) -> None:
        """The second line."""
        try:
            await self._write(entry, {"event": "end", "status": status, "seconds": round(seconds, 3)})
        except OSError as error:
            log.error("the audit log lacks the end of a change", status=status, **_shown(entry), exc_info=error)

    def close(self) -> None:
        """Once nothing is written any more."""
        self._writer.shutdown()

    async def _write(self, entry: Entry, more: dict[str, Any]) -> None:
        at = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"at": at, **more, **_shown(entry)}, ensure_ascii=True) + "\n"
        await asyncio.get_running_loop().run_in_executor(self._writer, self._append, line.encode())

    def _append(self, line: bytes) -> None:
        """Raises OSError. What a crash or a full disk left of a line is ended first."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _OWNER_ONLY)
        try:
            status = os.fstat(descriptor)
            size = status.st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            while line:
                line = line[os.write(descriptor, line) :]
            if stat.S_ISREG(status.st_mode):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _shown(entry: Entry) -> dict[str, Any]:
    return {name: value for name, value in asdict(entry).items() if value is not None}
