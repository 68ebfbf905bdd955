"""Every route says with `needs` who may use it; a route that does not say so is not served.

The guard stands around each route's own code: role, pages from elsewhere, size and type of the body, the audit
log. What goes wrong inside becomes a problem here, so that the audit log has the status that was answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Message, Receive

from streamproc.service.audit import Audit, Entry
from streamproc.service.auth import CSRF_FIELD, CSRF_HEADER, Caller, Sessions, caller_of
from streamproc.service.problem import Refusal, problem_of

Needed = Literal["read", "admin", "anyone"]
EndpointT = TypeVar("EndpointT", bound=Callable[..., Any])
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

FORM: Final = "application/x-www-form-urlencoded"
_NEEDED: Final = "__needs__"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HERE: Final = frozenset({"same-origin", "none"})  # Sec-Fetch-Site; `none`: the user typed it
_TEXTS: Final = frozenset(  # a pipeline file; what curl and urllib say of a body by default too
    {"", "application/json", "application/octet-stream", "application/x-yaml", "application/yaml", FORM}
)


def needs(role: Needed) -> Callable[[EndpointT], EndpointT]:
    """Declares who may use a route. Stands below the route's decorator."""

    def declare(endpoint: EndpointT) -> EndpointT:
        setattr(endpoint, _NEEDED, role)
        return endpoint

    return declare


def needed(route: BaseRoute) -> Needed:
    """Who may use the route. Raises TypeError for one that does not say, or is not guarded."""
    role: Needed | None = getattr(getattr(route, "endpoint", None), _NEEDED, None)
    if not isinstance(route, GuardedRoute) or role is None:
        raise TypeError(f"{route!r} does not say who may use it: @needs(…) on a GuardedRoute")
    return role


class GuardedRoute(APIRoute):
    """A route behind the guard. For routers: `APIRouter(route_class=GuardedRoute)`."""

    def get_route_handler(self) -> Handler:
        """The route's code, guarded."""
        handle, role = super().get_route_handler(), needed(self)
        takes_json = self.body_field is not None

        async def guarded(request: Request) -> Response:
            guard: Guard = request.app.state.guard
            return await guard(request, handle, role, takes_json=takes_json)

        return guarded


class Guard:
    """What every request to a route passes. `body_bytes_max` bounds bodies, however they are sent."""

    def __init__(self, sessions: Sessions, audit: Audit, body_bytes_max: int) -> None:
        self._sessions = sessions
        self._audit = audit
        self._body_bytes_max = body_bytes_max

    async def __call__(self, request: Request, handle: Handler, role: Needed, *, takes_json: bool) -> Response:
        changes = request.method not in _SAFE
        audited = changes and role != "read"
        entry = Entry.of(request) if audited else None
        began = time.monotonic()
        try:
            if role != "anyone":
                _permit(caller_of(request), role)
            if changes:
                refuse_cross_site(request)
            body = await self._body(request) if changes else b""
            if changes:
                _check_type(request, body, takes_json=takes_json)
                self._check_csrf(request, body, role)
            if entry is not None:
                entry = entry.holding(body) if role != "anyone" else entry  # of a log-in not even the digest
                await self._audit.begins(entry)
            response = await handle(Request(request.scope, _replayed(body, request.receive)))
        except ClientDisconnect:
            response = Response(status_code=400)  # nobody reads it
        except Exception as error:
            response = problem_of(error)
        if entry is not None:
            await self._audit.ended(entry, response.status_code, time.monotonic() - began)
        return response

    async def _body(self, request: Request) -> bytes:
        """All of it. Raises Refusal 413 as soon as it is too much."""
        said = request.headers.get("content-length", "0")
        size = int(said) if said.isascii() and said.isdecimal() else 0
        parts = bytearray()
        if size <= self._body_bytes_max:
            async for part in request.stream():
                parts += part
                if len(parts) > self._body_bytes_max:
                    break
            else:
                return bytes(parts)
        detail = f"a body may have at most {self._body_bytes_max} bytes"
        raise Refusal(413, "body-too-large", "The body is too large", detail, {"Connection": "close"})

    def _check_csrf(self, request: Request, body: bytes, role: Needed) -> None:
        """What a browser proves without being asked is not enough for a change: it must come from our own page.
        JSON and YAML cannot be sent from elsewhere without asking first (CORS), which nobody is granted."""
        if role == "anyone" or request.method != "POST":
            return
        caller, form = caller_of(request), content_type(request) == FORM
        if not caller.ambient or (caller.via != "session" and not (form and role == "admin")):
            return
        token = request.headers.get(CSRF_HEADER) or (form_fields(body).get(CSRF_FIELD, "") if form else "")
        if not self._sessions.fits(caller, token):
            detail = "the form's token is missing or of another session: load the page again; a program sends JSON"
            raise Refusal(403, "csrf", "Not from a page of this service", detail)


def _permit(caller: Caller, role: Needed) -> None:
    if role == "admin" and caller.role != "admin":
        raise Refusal(403, "forbidden", "Not allowed", f"this needs the role admin; {caller.name} has {caller.role}")


def refuse_cross_site(request: Request) -> None:
    """Raises Refusal 403 for a change that a browser sends on behalf of a page from elsewhere."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    elsewhere = site is not None and site.lower() not in _HERE
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        elsewhere = True
    if elsewhere:
        raise Refusal(403, "cross-site", "Not from elsewhere", "changes are not taken from pages of other sites")


def content_type(request: Request) -> str:
    """The media type, without parameters; empty where none is given."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def form_fields(body: bytes) -> dict[str, str]:
    """A form's fields, URL-encoded; of those that come twice the first. Raises Refusal 422 for what is none."""
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=100, errors="strict")
    except ValueError as error:
        raise Refusal(422, "invalid-request", "The request is not as it must be", "the form cannot be read") from error
    return {name: values[0] for name, values in fields.items()}


def _check_type(request: Request, body: bytes, *, takes_json: bool) -> None:
    kind = content_type(request)
    if not body or (kind == "application/json" if takes_json else kind in _TEXTS or kind.startswith("text/")):
        return
    taken = "the body as application/json" if takes_json else "the file as application/yaml"
    raise Refusal(415, "unsupported-media-type", "Not this media type", f"send {taken}")


def _replayed(body: bytes, disconnected: Receive) -> Receive:
    """A request's `receive` once its body has been read: gives the body, then what else comes."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            return await disconnected()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
