"""The service over HTTP: REST, its description, logging in, and the page. Nothing is served that is not guarded."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from streamproc import __version__
from streamproc.service.api import PipelineApi
from streamproc.service.audit import Audit, LoggedAudit
from streamproc.service.auth import Authenticator, Sessions, asks_who
from streamproc.service.config import ServiceConfig
from streamproc.service.dead_letter_routes import dead_letter_router
from streamproc.service.front import AllowedHosts, Front
from streamproc.service.guard import Guard, needed
from streamproc.service.login import login_router
from streamproc.service.openapi import openapi_of, reference_router
from streamproc.service.problem import problem_of
from streamproc.service.routes import rest_router

_DESCRIPTION: Final = (
    "Pipelines of one streamproc service: create, look, change, stop.\n\n"
    "Who asks shows a token (Authorization: Bearer …) or a client certificate; a service that only its own machine"
    " reaches may ask for nothing. The role read looks, admin changes. Errors are application/problem+json (RFC 9457)."
)


class _App(FastAPI):
    asks_who = True

    def openapi(self) -> dict[str, Any]:
        """Ours, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = openapi_of(self, asks_who=self.asks_who)
        return self.openapi_schema


def create_app(
    service: PipelineApi, config: ServiceConfig, *, page: APIRouter | None = None, audit: Audit | None = None
) -> FastAPI:
    """The application. `page`: routes for people, each a GuardedRoute with `needs`. `audit`: with the other logs
    unless given. Raises TypeError for a route that does not say who may use it."""
    sessions = Sessions()
    authenticator = Authenticator(config, sessions)
    app = _App(
        title="streamproc",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: _problem, Exception: _problem},
    )
    app.asks_who = asks_who(config)
    routers = [
        rest_router(service),
        dead_letter_router(service),
        reference_router(),
        login_router(authenticator, sessions),
    ]
    for router in routers if page is None else [page, *routers]:
        app.router.routes.extend(router.routes)
    public = [route for route in app.routes if needed(route) == "anyone"]
    app.state.sessions = sessions
    app.state.guard = Guard(sessions, audit or LoggedAudit(), config.body_bytes_max)
    app.add_middleware(Front, hosts=AllowedHosts(config), authenticator=authenticator, public=public)
    return app


async def _problem(request: Request, error: Exception) -> Response:
    """What is raised outside any route: there is none, or not with this method."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        there = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
        methods = {method for route in there for method in route.methods or ()}
        if "GET" in methods:
            methods.add("HEAD")  # the front makes a GET of it
        error.headers = {"Allow": ", ".join(sorted(methods))}
    return problem_of(error)
