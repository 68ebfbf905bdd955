"""`serve`: many pipelines in one process, until a signal."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streamproc.commands.session import DONE, Session
from streamproc.observability.logging import configure_logging
from streamproc.process_settings import new_loop, set_memory
from streamproc.service.config import ServiceConfig
from streamproc.service.config_file import LoadedConfig, load_service_config
from streamproc.service.server import Listening, serve

_THREADS_END_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """The options of the command; None: as the configuration says."""

    config: Path | None = None
    host: str | None = None
    port: int | None = None
    metrics_port: int | None = None
    directory: Path | None = None
    log_level: str | None = None


def run_service(session: Session, request: ServeRequest) -> int:
    """Serve; gives the exit code. Raises what keeps it from starting."""
    configure_logging(session.redaction, "debug" if session.debug else request.log_level)
    loaded = load_service_config(request.config) if request.config is not None else LoadedConfig(ServiceConfig())
    session.redaction.add(loaded.secrets)
    for warning in loaded.warnings:
        session.say(warning)
    config = _with_options(loaded.config, request)

    def listening(at: Listening) -> None:
        session.say(f"streamproc: serving {config.directory} on {at.api} (description: {at.api}/docs)")
        session.say(f"streamproc: metrics and health on {at.metrics}/metrics")

    set_memory()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        left_behind = runner.run(serve(config, session.redaction, say=session.say, listening=listening))
        if left_behind:
            session.say("streamproc: a call that never returned was left behind")
            os._exit(DONE)  # its thread would be waited for
    _end_soon(session)
    return DONE


def _end_soon(session: Session) -> None:
    """Everything is done: whoever still runs is a thread that user code began, and Python would wait for it."""

    def end() -> None:
        time.sleep(_THREADS_END_S)
        session.say("streamproc: a thread that user code began was left behind")
        os._exit(DONE)

    threading.Thread(target=end, name="end", daemon=True).start()


def _with_options(config: ServiceConfig, request: ServeRequest) -> ServiceConfig:
    """What was said on the command line in place of what the file says."""
    listen = {name: value for name, value in (("host", request.host), ("port", request.port)) if value is not None}
    changes: dict[str, Any] = {}
    if listen:
        changes["listen"] = config.listen.model_copy(update=listen)
    if request.metrics_port is not None:
        changes["metrics"] = config.metrics.model_copy(update={"port": request.metrics_port})
    if request.directory is not None:
        changes["directory"] = request.directory
    return config.model_copy(update=changes)
