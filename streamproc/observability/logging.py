"""Logs: lines for people on a terminal, JSON lines otherwise, always on stderr, never with a secret in them.

Everything goes through one handler of the standard library, so that what aiokafka or asyncio say is
formatted and redacted as our own words are.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import IO, Any, Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from state.failure import Failure
from streamproc.observability.redaction import Redaction

LEVEL_VARIABLE: Final = "STREAMPROC_LOG_LEVEL"
LEVELS: Final = ("debug", "info", "warning", "error")

_OURS: Final = ("streamproc", "operators", "state")


class _CurrentStderr(logging.StreamHandler[IO[str]]):
    """Writes to whatever stderr is now: a progress line replaces it while it is shown."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> IO[str]:  # type: ignore[override]
        return sys.stderr


def configure_logging(redaction: Redaction, level: str | None = None, *, terminal: bool | None = None) -> None:
    """Set up this process's logging. Secrets that `redaction` learns of later are hidden from then on.

    `level` is one of `LEVELS`; None asks the environment. Unknown levels mean info. At debug, failures
    that the user or the outside world must mend come with their traceback too.
    """
    chosen = (level or os.environ.get(LEVEL_VARIABLE) or "info").lower()
    if chosen not in LEVELS:
        chosen = "info"
    for_people = sys.stderr.isatty() if terminal is None else terminal
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if for_people else "iso", utc=not for_people),
    ]
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        _Tracebacks(everything=chosen == "debug"),
        structlog.processors.format_exc_info,
        _Redacted(redaction),
        structlog.dev.ConsoleRenderer(
            colors="NO_COLOR" not in os.environ,
            exception_formatter=structlog.dev.plain_traceback,  # the pretty one shows local variables
        )
        if for_people
        else structlog.processors.JSONRenderer(ensure_ascii=False),
    ]
    handler = _CurrentStderr()
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(chosen.upper())
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


class _Redacted:
    """`Redaction` as a processor."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction

    def __call__(self, logger: WrappedLogger, method: str, event: MutableMapping[str, Any]) -> EventDict:
        return {key: self._redaction.under(key, value) for key, value in event.items()}


class _Tracebacks:
    """A failure somebody else must mend is told in one line; the way to our code helps only us."""

    def __init__(self, everything: bool) -> None:
        self._everything = everything

    def __call__(self, logger: WrappedLogger, method: str, event: MutableMapping[str, Any]) -> EventDict:
        info = event.get("exc_info")
        if info is True:
            info = sys.exc_info()
        error = info[1] if isinstance(info, tuple) else info
        if isinstance(error, Failure) and error.acts != "us" and not self._everything:
            del event["exc_info"]
            event.setdefault("error", str(error))
        return event
