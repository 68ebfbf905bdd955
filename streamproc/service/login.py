"""Logging in with a browser: a token is shown once, then a cookie holds a session."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from streamproc.service.auth import SESSION_COOKIE, SESSION_SECONDS, Authenticator, Sessions, caller_of
from streamproc.service.guard import GuardedRoute, form_fields, needs
from streamproc.service.problem import Refusal


def login_router(authenticator: Authenticator, sessions: Sessions) -> APIRouter:
    """`GET` and `POST /login`, `POST /logout`."""
    router = APIRouter(route_class=GuardedRoute, include_in_schema=False)

    @router.get("/login")
    @needs("anyone")
    async def login_page(request: Request) -> Response:
        target = local_target(request.query_params.get("next"))
        if not authenticator.takes_tokens:
            return RedirectResponse(target, status_code=303)
        return _page(request, target)

    @router.post("/login")
    @needs("anyone")
    async def login(request: Request) -> Response:
        fields = form_fields(await request.body())
        target = local_target(fields.get("next"))
        if not authenticator.takes_tokens:
            return RedirectResponse(target, status_code=303)
        try:
            holder = authenticator.holder(fields.get("token", "").strip(), request)
        except Refusal as refusal:
            if "text/html" not in request.headers.get("accept", ""):
                raise
            return _page(request, target, refusal)
        answer = RedirectResponse(target, status_code=303)
        answer.set_cookie(
            SESSION_COOKIE,
            sessions.begin(holder),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    @router.post("/logout")
    @needs("read")
    async def logout(request: Request) -> Response:
        sessions.end(caller_of(request))
        answer = RedirectResponse("/login", status_code=303)
        answer.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return answer

    return router


def local_target(target: str | None) -> str:
    """Where to go after logging in: a path of ours, never another site."""
    if not target or not target.startswith("/") or target.startswith("//"):
        return "/"
    parts = urlsplit(target)
    strange = parts.scheme or parts.netloc or "\\" in target or not target.isprintable()
    return "/" if strange else target


def _page(request: Request, target: str, refusal: Refusal | None = None) -> Response:
    from streamproc.service.page.render import page

    said = "" if refusal is None else refusal.detail
    answer = page(request, "login.html", refusal.status if refusal else 200, next=target, said=said)
    if refusal is not None and "Retry-After" in refusal.headers:
        answer.headers["Retry-After"] = refusal.headers["Retry-After"]
    return answer
