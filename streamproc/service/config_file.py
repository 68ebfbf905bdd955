"""The service's configuration file: every fault at its place, references resolved, secrets known."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from streamproc.pipeline.document import Document, read_document
from streamproc.pipeline.faults import FaultLog, InvalidPipeline
from streamproc.pipeline.suggest import shown
from streamproc.pipeline.wording import report
from streamproc.service.auth import DIGEST_PREFIX
from streamproc.service.config import ServiceConfig

_EMPTY: Final = "is empty"
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """The configuration, what must not be shown of it, and what will work but hardly as meant."""

    config: ServiceConfig
    secrets: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def load_service_config(path: Path, *, environment: Mapping[str, str] = os.environ) -> LoadedConfig:
    """Read a file. Raises InvalidPipeline with every fault."""
    document = read_document(path, environment=environment)
    if [problem.message for problem in document.problems] == [_EMPTY]:
        return LoadedConfig(ServiceConfig())
    log = FaultLog(document)
    config = _read(document, log)
    if config is None or log.failed:
        raise InvalidPipeline(log.faults())
    tokens = tuple(one.token for one in config.tokens)
    warnings = tuple(str(fault) for fault in log.faults())
    return LoadedConfig(config, (*document.secrets, *tokens), warnings)


def _read(document: Document, log: FaultLog) -> ServiceConfig | None:
    value = document.value
    if document.is_broken(()):
        return None
    if not isinstance(value, dict):
        log.error((), f"must be a mapping, not {shown(value)}")
        return None
    try:
        config = ServiceConfig.model_validate_json(json.dumps(value))  # JSON: lists for tuples, texts for paths
    except ValidationError as error:
        report(error, ServiceConfig, value, (), log)
        return None
    _check_tokens(config, document, log)
    return config


def _check_tokens(config: ServiceConfig, document: Document, log: FaultLog) -> None:
    names = Counter(one.name for one in config.tokens)
    for index, one in enumerate(config.tokens):
        path = ("tokens", index)
        if names[one.name] > 1:
            log.error((*path, "name"), f"'{one.name}' is here twice: the audit log tells tokens apart by their names")
        if one.token.startswith(DIGEST_PREFIX):
            if not _DIGEST.fullmatch(one.token.removeprefix(DIGEST_PREFIX)):
                hint = 'printf %s "$TOKEN" | sha256sum prints it'
                log.error((*path, "token"), "behind sha256: there must be 64 hexadecimal digits", hint)
        elif not document.from_reference((*path, "token")):
            hint = "give its digest (sha256:…), or a reference: ${file:/run/secrets/…}"
            log.warning((*path, "token"), "the token itself stands in the file", hint, at_key=False)
