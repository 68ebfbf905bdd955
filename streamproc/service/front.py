"""What every request passes before routing: is it for us, is there room, who asks. And what every answer carries.

Deny by default: who does not say who they are gets nothing but the routes that are for anyone, not even a 404.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamproc.service.auth import Authenticator, unauthorized
from streamproc.service.config import ServiceConfig
from streamproc.service.problem import ProblemResponse, Refusal, problem_of

REQUESTS_MAX: Final = 256  # at once
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with none at all a browser sends `Origin: null` with our own forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")


class AllowedHosts:
    """The names we go by: a page that makes its own name lead here (DNS rebinding) has another."""

    def __init__(self, config: ServiceConfig) -> None:
        host = config.listen.host
        own = f"[{host}]" if ":" in host else host
        self._hosts = frozenset(name.lower().rstrip(".") for name in (*_LOOPBACK_HOSTS, own, *config.allowed_hosts))

    def __contains__(self, host: str) -> bool:
        """`host`: a Host header. A name that is allowed without a port is allowed with any."""
        host = host.lower()
        name, colon, port = host.rpartition(":")
        if not colon or (host.startswith("[") and host.endswith("]")):
            name, port = host, "0"
        return port.isdecimal() and (host in self._hosts or name.rstrip(".") in self._hosts)


class Front:
    """The outermost middleware. `public`: the routes that are for anyone."""

    def __init__(
        self, app: ASGIApp, *, hosts: AllowedHosts, authenticator: Authenticator, public: Sequence[BaseRoute]
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._authenticator = authenticator
        self._public = public
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)  # lifespan; there are no web sockets
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(MutableHeaders(scope=message))
            await send(message)

        scope = {**scope, "state": dict(scope.get("state", {}))}
        if scope["method"] == "HEAD":
            scope["method"] = "GET"  # the server leaves out the body
        try:
            answer = self._refusal(Request(scope))
            if answer is not None:
                return await answer(scope, receive, sending)
            self._requests += 1
            try:
                return await self._app(scope, receive, sending)
            finally:
                self._requests -= 1
        except Exception as error:
            answer = problem_of(error)
            if not started:
                await answer(scope, receive, sending)

    def _refusal(self, request: Request) -> Response | None:
        """What keeps the request from being routed; sets who asks."""
        if (host := request.headers.get("host", "")) not in self._hosts:
            detail = f"the service does not go by the name {host[:100]!r}; its allowed_hosts could"
            return ProblemResponse(400, "unknown-host", "Not for this host", detail)
        if self._requests >= REQUESTS_MAX:
            detail = "too many requests are being answered"
            return ProblemResponse(503, "busy", "Too much at once", detail, headers={"Retry-After": "1"})
        public = any(route.matches(request.scope)[0] is Match.FULL for route in self._public)
        try:
            caller = self._authenticator.caller(request)
            if caller is None and not public:
                raise unauthorized("say who you are: a token is needed (Authorization: Bearer …)")
        except Refusal as refusal:
            if not public:
                return self._to_log_in(request) or problem_of(refusal)
            caller = None
        request.scope["state"]["caller"] = caller
        return None

    def _to_log_in(self, request: Request) -> Response | None:
        """Where a person with a browser is sent who is not logged in."""
        looks = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        if not looks or "authorization" in request.headers or not self._authenticator.takes_tokens:
            return None
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(path, safe='/')}", status_code=303)


def _add_headers(headers: MutableHeaders) -> None:
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("Cache-Control", "no-store")
