"""The API's own description: OpenAPI at `/openapi.json`, and the same as a page at `/docs`, which loads nothing."""

from __future__ import annotations

import http
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from streamproc.service.guard import GuardedRoute, needed, needs
from streamproc.service.problem import MEDIA_TYPE
from streamproc.service.views import Problem

_TEMPLATES: Final = Path(__file__).parent / "templates"
_METHODS: Final = ("get", "put", "post", "delete")
_BROKEN_RULES: Final = {
    400: "The Host header is not one of the service's names, or the body is not UTF-8.",
    401: "No token, session or client certificate, or one that is not known.",
    403: "The role does not allow it, or the request comes from a page of another site.",
    404: "There is no such pipeline, or nothing of that name in it.",
    409: "Not possible in the state the pipeline is in. Where state would be dropped or the plan is outdated,"
    " `plan` holds the plan as it is now.",
    413: "The body is larger than `body_bytes_max`.",
    415: "The body is not of a type that is taken.",
    422: "The request or the pipeline file has errors: `errors` lists all of them, those of a file with `line`,"
    " `column`, `path`, `message` and `hint`.",
    429: "Too many different wrong tokens from one address.",
    500: "A defect. `instance` is in the service's log.",
    503: "The service is busy or stopping, or something outside (a store, the audit log) does not answer.",
    504: "It takes longer than a request may. It goes on; the pipeline's state tells how it ends.",
}
_EVERYWHERE: Final = (400, 401, 403, 422, 429, 500, 503)
_WITH_BODY: Final = (413, 415)
_SCHEMES: Final[dict[str, Any]] = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of the service's configuration."},
    "certificate": {"type": "mutualTLS", "description": "A client certificate of the configured CA (`tls.clients`)."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "streamproc_session",
        "description": "A browser that has logged in. Changes need the header `X-CSRF-Token` as well.",
    },
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem responses of a route, beside those that every route has."""
    return {
        status: {
            "description": _BROKEN_RULES[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def openapi_of(app: FastAPI, *, asks_who: bool) -> dict[str, Any]:
    """The whole document. `asks_who`: callers must prove who they are; else they may."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, openapi_version="3.1.0"
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    components["securitySchemes"] = _SCHEMES
    proofs: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
    if not asks_who:
        proofs.append({})
    for route in app.routes:
        if not isinstance(route, GuardedRoute) or not route.include_in_schema:
            continue
        for method in route.methods or ():
            operation = document["paths"][route.path_format][method.lower()]
            role = needed(route)
            operation["security"] = [] if role == "anyone" else proofs
            operation["x-role"] = role
            statuses = (*_EVERYWHERE, *(_WITH_BODY if method in ("PUT", "POST") else ()))
            for status, response in problems(*statuses).items():
                operation["responses"].setdefault(str(status), response)
            _only_problems(operation["responses"])
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return document


def _only_problems(responses: dict[str, Any]) -> None:
    """FastAPI's own description of 422 is not what we answer."""
    for status, response in problems(422).items():
        if "application/json" in responses.get(str(status), {}).get("content", {}):
            responses[str(status)] = response


def reference_router() -> APIRouter:
    """`/openapi.json`, `/docs` and its style."""
    router = APIRouter(route_class=GuardedRoute, include_in_schema=False)

    @router.get("/openapi.json")
    @needs("read")
    async def openapi(request: Request) -> Response:
        return JSONResponse(request.app.openapi())

    @router.get("/docs")
    @needs("read")
    async def docs(request: Request) -> Response:
        document = request.app.openapi()
        page = _environment().get_template("reference.html")
        return HTMLResponse(page.render(document=document, operations=list(_operations(document))))

    @router.get("/docs.css")
    @needs("anyone")
    async def style() -> Response:
        return Response((_TEMPLATES / "reference.css").read_text(), media_type="text/css")

    return router


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    environment.filters["phrase"] = lambda status: http.HTTPStatus(int(status)).phrase
    return environment


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every operation, with its bodies as they can be shown."""
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                operation = methods[method]
                yield {"path": path, "method": method.upper(), **operation, "bodies": _bodies(operation, document)}


def _bodies(operation: Mapping[str, Any], document: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = operation.get("requestBody", {}).get("content", {})
    return [
        {"media": media, "example": body["example"], "fields": {}}
        if "example" in body
        else {"media": media, "example": None, "fields": _fields(body["schema"], document)}
        for media, body in content.items()
    ]


def _fields(schema: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """The properties behind a reference, or behind `X or null`."""
    for choice in (schema, *schema.get("anyOf", ())):
        if "$ref" in choice:
            found: dict[str, Any] = document["components"]["schemas"][choice["$ref"].rsplit("/", 1)[1]]
            return dict(found.get("properties", {}))
    return {}
