"""What the job section and the parallelism of its nodes must obey beyond their shape."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from fsspec.registry import known_implementations

from operators.explanation import duration_text
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.shape import Part
from streamproc.pipeline.spec import JobSpec
from streamproc.pipeline.suggest import did_you_mean

TRANSACTION_TIMEOUT_MS_MAX: Final = 900_000  # what a broker grants unless configured otherwise
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_RESTART_FIELDS: Final = {
    "backoff": ("initial", "max", "reset_after"),
    "fixed": ("attempts", "delay"),
    "none": (),
}


def check_job(part: Part[JobSpec], log: FaultLog) -> JobSpec:
    """The job's settings (defaults where they could not be read), faults recorded."""
    job = part.spec or JobSpec()
    if job.parallelism > job.max_parallelism and not part.is_wrong("max_parallelism"):
        message = f"{job.parallelism} is more than max_parallelism ({job.max_parallelism})"
        log.error(("job", "parallelism"), message)
    check_url(job.checkpoint.storage, ("job", "checkpoint", "storage"), log)
    restart = job.restart
    legal = _RESTART_FIELDS[restart.strategy]
    others = restart.model_fields_set - {"strategy", *legal}
    for name in sorted(others if not part.is_wrong("restart", "strategy") else ()):
        owner = next(strategy for strategy, names in _RESTART_FIELDS.items() if name in names)
        log.error(
            ("job", "restart", name), f"'{name}' belongs to `strategy: {owner}`, not to {restart.strategy}", at_key=True
        )
    if restart.initial > restart.max:
        message = f"{duration_text(restart.initial)} is more than max ({duration_text(restart.max)})"
        log.error(("job", "restart", "initial"), message)
    return job


def check_parallelism(parts: Iterable[Part[Any]], job: JobSpec, log: FaultLog) -> None:
    """A part's own parallelism is at most the number of key groups."""
    for part in parts:
        own = getattr(part.spec, "parallelism", None)
        if own is not None and own > job.max_parallelism:
            message = f"{own} is more than the job's max_parallelism ({job.max_parallelism})"
            log.error((*part.path, "parallelism"), message)


def check_url(url: str, path: FieldPath, log: FaultLog) -> None:
    """A path, or a URL of a kind fsspec knows, that names something."""
    match = _SCHEME.match(url)
    if match is None:
        if not url.strip():
            log.error(path, "must be a path or a URL, not empty")
        return
    scheme = match[1].lower()
    if scheme not in known_implementations and scheme not in ("file", "local"):
        message = f"unknown kind of URL '{scheme}:'"
        log.error(path, message, did_you_mean(scheme, ("file", "memory", *known_implementations)))
    elif not url[match.end() :].strip("/ ") and scheme != "memory":
        example = "file:some/folder" if scheme == "file" else f"{scheme}://bucket/folder"
        log.error(path, "names no folder", f"write {example}")


def check_transaction_timeout(part: Part[Any], timeout_ms: int, job: JobSpec, log: FaultLog) -> None:
    """A prepared transaction must outlive the checkpoint it belongs to, or its records are lost."""
    at: FieldPath = (*part.path, "transaction_timeout")
    if timeout_ms > TRANSACTION_TIMEOUT_MS_MAX:
        log.error(at, f"{duration_text(timeout_ms)} is more than brokers allow (15m)")
    elif timeout_ms < job.checkpoint.timeout:
        said, checkpoint = duration_text(timeout_ms), duration_text(job.checkpoint.timeout)
        why = "the broker could drop results before they are committed"
        if part.has("transaction_timeout"):
            message = f"{said} is shorter than job.checkpoint.timeout ({checkpoint}): {why}"
            log.error(at, message, "raise it (at most 15m), or lower job.checkpoint.timeout")
        else:
            message = f"{checkpoint} is longer than Kafka sinks keep a transaction open ({said}): {why}"
            log.error(("job", "checkpoint", "timeout"), message, f"at most {said}, or `delivery: at_least_once`")
