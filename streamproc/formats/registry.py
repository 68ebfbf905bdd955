"""A client of a schema registry (Confluent's REST API): each schema is fetched or registered once, with patience.

It blocks. Schema ids stand inside compressed records, so that only the worker thread that decodes them can know
which are needed: it asks here, a few times in a job's life, and everything else is found in the cache. What may
pass (no answer, 429, 5xx) is tried again with backoff until a deadline, then is a failure of the job and never
of the records.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote, urlsplit

import structlog

from state.failure import Actor, Failure
from streamproc.pipeline.format_spec import RegistrySpec

log = structlog.get_logger("streamproc.registry")

SchemaType = Literal["AVRO", "PROTOBUF", "JSON"]
DEADLINE_S: Final = 30.0
_REQUEST_S: Final = 10.0
_BACKOFF_S: Final = 0.1
_BACKOFF_MAX_S: Final = 3.0
_CACHED_MAX: Final = 1_000
_ABSENT_S: Final = 10.0  # how long "there is no such schema" is believed
_ANSWER_BYTES_MAX: Final = 16 << 20
_REFERENCES_MAX: Final = 200
_CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_SUBJECT_UNKNOWN: Final = 40401
_SCHEMA_UNKNOWN: Final = 40403


class RegistryUnavailable(Failure):
    """The registry did not answer in time, or answered that it cannot now."""

    acts: ClassVar[Actor] = "world"
    retry_helps: ClassVar[bool] = True


class RegistryRefused(Failure):
    """The registry said no for good: credentials, an incompatible schema, or one that is not registered."""

    acts: ClassVar[Actor] = "user"


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A schema's text and, by name, the texts that it refers to (dependencies before what needs them)."""

    type: SchemaType
    text: str
    references: Mapping[str, str] = field(default_factory=dict)


class SchemaRegistry:
    """One registry. Safe to use from several threads; `why` begins every message (`source orders`)."""

    def __init__(self, spec: RegistrySpec, why: str, *, deadline_s: float = DEADLINE_S) -> None:
        self.url = spec.url.rstrip("/")
        self._why = why
        self._deadline_s = deadline_s
        self._headers = {"Accept": f"{_CONTENT_TYPE}, application/json", "Content-Type": _CONTENT_TYPE}
        self._authorization: str | None = None
        if spec.username is not None:
            pair = f"{spec.username}:{spec.password or ''}".encode()
            self._authorization = f"Basic {base64.b64encode(pair).decode()}"
        context = ssl.create_default_context(cafile=spec.ca) if urlsplit(self.url).scheme == "https" else None
        handlers = [] if context is None else [urllib.request.HTTPSHandler(context=context)]
        self._opener = urllib.request.build_opener(*handlers)
        self._lock = threading.Lock()
        self._known: OrderedDict[int, tuple[RegisteredSchema | None, float]] = OrderedDict()

    def schema(self, schema_id: int) -> RegisteredSchema | None:
        """The schema of this id; None when the registry has none. `RegistryUnavailable` after the deadline."""
        with self._lock:
            if (found := self._known.get(schema_id)) is not None:
                schema, known_s = found
                if schema is not None or time.monotonic() - known_s < _ABSENT_S:
                    self._known.move_to_end(schema_id)
                    return schema
        schema = self._fetch(schema_id)
        with self._lock:
            self._known[schema_id] = (schema, time.monotonic())
            while len(self._known) > _CACHED_MAX:
                self._known.popitem(last=False)
        return schema

    def register(self, subject: str, schema_type: SchemaType, text: str) -> int:
        """The id of this schema under `subject`, registered if it is not; `RegistryRefused` where that is not
        compatible with the versions before."""
        status, answer = self._call("POST", f"/subjects/{quote(subject, safe='')}/versions", _body(schema_type, text))
        if status == 200:
            return int(answer["id"])
        said = _said(answer)
        if status == 409:
            raise RegistryRefused(
                f"{self._why}: the schema of its columns is not compatible with what is registered under subject "
                f"{subject!r}: {said}. Keep the columns and their types, write under another `subject`, or change "
                "the subject's compatibility in the registry"
            )
        raise RegistryRefused(f"{self._why}: the registry refuses a schema for subject {subject!r}: {said}")

    def look_up(self, subject: str, schema_type: SchemaType, text: str) -> int:
        """The id of exactly this schema under `subject`; `RegistryRefused` when it is not registered."""
        status, answer = self._call("POST", f"/subjects/{quote(subject, safe='')}", _body(schema_type, text))
        if status == 200:
            return int(answer["id"])
        if status == 404 and answer.get("error_code") in (_SUBJECT_UNKNOWN, _SCHEMA_UNKNOWN):
            raise RegistryRefused(
                f"{self._why}: its schema is not registered under subject {subject!r} ({_said(answer)}), and "
                f"`auto_register` is false. Register it, or set `auto_register: true`: {text}"
            )
        raise RegistryRefused(f"{self._why}: the registry refuses to look up subject {subject!r}: {_said(answer)}")

    # --- requests

    def _fetch(self, schema_id: int) -> RegisteredSchema | None:
        status, answer = self._call("GET", f"/schemas/ids/{schema_id}")
        if status == 404:
            return None
        if status != 200:
            raise RegistryRefused(f"{self._why}: the registry refuses schema {schema_id}: {_said(answer)}")
        references: dict[str, str] = {}
        self._resolve(answer, references)
        return RegisteredSchema(answer.get("schemaType", "AVRO"), answer["schema"], references)

    def _resolve(self, answer: Mapping[str, Any], into: dict[str, str]) -> None:
        for reference in answer.get("references") or ():
            name, subject, version = reference["name"], reference["subject"], reference["version"]
            if name in into:
                continue
            if len(into) >= _REFERENCES_MAX:
                raise RegistryRefused(f"{self._why}: a schema refers to more than {_REFERENCES_MAX} others")
            path = f"/subjects/{quote(subject, safe='')}/versions/{int(version)}"
            status, referred = self._call("GET", path)
            if status != 200:
                raise RegistryRefused(f"{self._why}: schema reference {name!r} ({subject}): {_said(referred)}")
            self._resolve(referred, into)
            into[name] = referred["schema"]

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Status and answer of a request, tried again while that may help."""
        deadline = time.monotonic() + self._deadline_s
        pause_s = _BACKOFF_S
        while True:
            left_s = deadline - time.monotonic()
            try:
                status, answer = self._once(method, path, body, max(0.1, min(_REQUEST_S, left_s)))
                if status not in (408, 429) and status < 500:
                    if status in (401, 403):
                        raise RegistryRefused(
                            f"{self._why}: the schema registry {self.url} refuses our credentials ({_said(answer)}): "
                            "see `username` and `password` under `registry`"
                        )
                    return status, answer
                reason = f"status {status}: {_said(answer)}"
            except (OSError, HTTPException, ValueError) as error:
                cause = getattr(error, "reason", error)
                if isinstance(cause, ssl.SSLCertVerificationError):
                    raise RegistryRefused(
                        f"{self._why}: the certificate of the schema registry {self.url} is not trusted: "
                        f"{cause.verify_message}; see `ca` under `registry`"
                    ) from error
                reason = str(cause) or type(cause).__name__
            if time.monotonic() + pause_s >= deadline:
                waited = f"{self._deadline_s:.0f} s ({reason})"
                raise RegistryUnavailable(f"{self._why}: the schema registry {self.url} gave no answer for {waited}")
            log.warning("schema registry does not answer, trying again", url=self.url, reason=reason)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _BACKOFF_MAX_S)

    def _once(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> tuple[int, dict[str, Any]]:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, content, self._headers, method=method)
        if self._authorization is not None:
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            with self._opener.open(request, timeout=timeout_s) as response:
                return response.status, _parsed(response.read(_ANSWER_BYTES_MAX))
        except urllib.error.HTTPError as error:
            with error:
                try:
                    return error.code, _parsed(error.read(_ANSWER_BYTES_MAX))
                except ValueError:
                    return error.code, {"message": str(error.reason)}


def _parsed(content: bytes) -> dict[str, Any]:
    answer = json.loads(content)
    if not isinstance(answer, dict):
        raise ValueError("the answer is not a JSON object")
    return answer


def _body(schema_type: SchemaType, text: str) -> dict[str, Any]:
    return {"schema": text, "schemaType": schema_type}


def _said(answer: Mapping[str, Any]) -> str:
    message = str(answer.get("message") or "no reason given")
    code = answer.get("error_code")
    return f"{message} (error {code})" if code is not None else message
