"""A schema registry of the tests' own: the part of Confluent's REST API that clients use, over real HTTP.

Compatibility is judged for Avro records as `BACKWARD` demands, by fields: a new schema may not change a field's
type, nor add one without a default.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


class Refused(Exception):
    """Status, error code and message of an answer."""


@dataclass
class Registry:
    """Schemas by id and subjects' versions; switches to make it misbehave."""

    url: str = ""
    credentials: tuple[str, str] | None = None
    failures: int = 0  # so many of the next requests are answered with 503
    requests: list[str] = field(default_factory=list)
    _schemas: dict[int, dict[str, Any]] = field(default_factory=dict)
    _subjects: dict[str, list[int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def register(
        self, subject: str, text: str, schema_type: str = "AVRO", references: list[dict[str, Any]] | None = None
    ) -> int:
        """As a client's POST does, without compatibility."""
        with self._lock:
            return self._add(subject, {"schema": text, "schemaType": schema_type, "references": references or []})

    def latest(self, subject: str) -> dict[str, Any]:
        """The newest schema of a subject."""
        return self._schemas[self._subjects[subject][-1]]

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON that answers a request; `Refused` for an error."""
        with self._lock:
            self.requests.append(f"{method} {path}")
            if self.failures:
                self.failures -= 1
                raise Refused(503, 50301, "the leader is not known")
            match method, [unquote(part) for part in path.strip("/").split("/")]:
                case "GET", ["schemas", "ids", number]:
                    return self._described(self._found(int(number)))
                case "GET", ["subjects", subject, "versions", version]:
                    ids = self._versions(subject)
                    at = len(ids) if version == "latest" else int(version)
                    if not 1 <= at <= len(ids):
                        raise Refused(404, 40402, f"Version {version} not found.")
                    found = self._found(ids[at - 1])
                    return self._described(found) | {"subject": subject, "version": at, "id": ids[at - 1]}
                case "POST", ["subjects", subject, "versions"]:
                    self._check(subject, body)
                    return {"id": self._add(subject, body)}
                case "POST", ["subjects", subject]:
                    for at, schema_id in enumerate(self._versions(subject), start=1):
                        if _same(self._schemas[schema_id], body):
                            return {"subject": subject, "version": at, "id": schema_id, "schema": body["schema"]}
                    raise Refused(404, 40403, "Schema not found")
        raise Refused(404, 404, "HTTP 404 Not Found")

    def _versions(self, subject: str) -> list[int]:
        if subject not in self._subjects:
            raise Refused(404, 40401, f"Subject '{subject}' not found.")
        return self._subjects[subject]

    def _found(self, schema_id: int) -> dict[str, Any]:
        if schema_id not in self._schemas:
            raise Refused(404, 40403, f"Schema {schema_id} not found")
        return self._schemas[schema_id]

    def _described(self, schema: dict[str, Any]) -> dict[str, Any]:
        # As the real one does: Avro is the type that is not said.
        kind = schema.get("schemaType", "AVRO")
        said = {"schema": schema["schema"]} | ({} if kind == "AVRO" else {"schemaType": kind})
        return said | ({"references": schema["references"]} if schema.get("references") else {})

    def _add(self, subject: str, schema: dict[str, Any]) -> int:
        known = next((i for i, other in self._schemas.items() if _same(other, schema)), None)
        schema_id = len(self._schemas) + 1 if known is None else known
        self._schemas[schema_id] = schema
        versions = self._subjects.setdefault(subject, [])
        if schema_id not in versions:
            versions.append(schema_id)
        return schema_id

    def _check(self, subject: str, body: dict[str, Any]) -> None:
        if body.get("schemaType", "AVRO") != "AVRO":
            return
        try:
            new = {f["name"]: f for f in json.loads(body["schema"])["fields"]}
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(422, 42201, f"Invalid schema: {error}") from error
        for schema_id in self._subjects.get(subject, [])[-1:]:
            old = {f["name"]: f for f in json.loads(self._schemas[schema_id]["schema"])["fields"]}
            for name, member in new.items():
                if (name in old and old[name]["type"] != member["type"]) or (
                    name not in old and "default" not in member
                ):
                    message = f'Schema being registered is incompatible with an earlier schema for subject "{subject}"'
                    raise Refused(409, 409, f"{message}, details: field {name}")


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(
        re.sub(r"\s+", " ", str(one.get(key, default))) == re.sub(r"\s+", " ", str(other.get(key, default)))
        for key, default in (("schema", ""), ("schemaType", "AVRO"))
    )


@contextmanager
def serve_registry() -> Iterator[Registry]:
    """A registry on a port of its own."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = 200
            try:
                self._authenticate()
                answer = registry.answer(self.command, self.path.partition("?")[0], json.loads(body or b"{}"))
            except Refused as refused:
                status, code, message = refused.args
                answer = {"error_code": code, "message": message}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _authenticate(self) -> None:
            if registry.credentials is None:
                return
            expected = base64.b64encode(":".join(registry.credentials).encode()).decode()
            if self.headers.get("Authorization") != f"Basic {expected}":
                raise Refused(401, 40101, "Unauthorized")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    try:
        yield registry
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
