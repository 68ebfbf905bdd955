"""Who may what: every method of every route, and who gets in at all."""

from __future__ import annotations

import hashlib
from functools import cache
from itertools import product

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from streamproc.service.app import create_app
from streamproc.service.auth import (
    SESSION_COOKIE,
    SESSION_SECONDS,
    SESSIONS_MAX,
    Caller,
    Sessions,
    Unsecured,
    check_exposure,
    csrf_token,
)
from streamproc.service.config import ClientCertificates, ListenConfig, ServiceConfig, TlsConfig, TokenConfig
from streamproc.service.front import CSP
from streamproc.service.guard import GuardedRoute, needed, needs
from streamproc.service.page.routes import page_router
from streamproc.service.throttle import ADDRESSES_MAX, GUESSES_MAX, WINDOW_SECONDS, Throttle
from tests.unit.service.asking import ADMIN, READ, TOKENS, Remembering, asking, bearer, problem

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
PUBLIC = {("/docs.css", "GET"), ("/static/x", "GET"), ("/login", "GET"), ("/login", "POST")}


def secured() -> FastAPI:
    """All there is, the page too."""
    service = Remembering()
    return create_app(service, TOKENS, page=page_router(service))


def path_of(route: GuardedRoute) -> str:
    return route.path_format.format(**dict.fromkeys(route.param_convertors, "x"))


def every_route() -> list[tuple[str, str]]:
    """Path and method, those that nobody serves too."""
    return list(product([*sorted({path for path, _ in roles()}), "/v1", "/nothing"], METHODS))


@cache
def roles() -> dict[tuple[str, str], str]:
    """What each route declares, by path and method."""
    routes = [route for route in secured().routes if isinstance(route, GuardedRoute)]
    return {(path_of(route), method): needed(route) for route in routes for method in route.methods or ()}


def role_of(path: str, method: str) -> str | None:
    """None: there is no such route."""
    return roles().get((path, "GET" if method == "HEAD" else method))


def test_the_routes_are_those_of_the_contract() -> None:
    guarded = [route for route in secured().routes if isinstance(route, GuardedRoute)]
    routes = {(route.path_format, method) for route in guarded for method in route.methods or ()}
    one = "/v1/pipelines/{name}"
    changing = {(one, "PUT"), (one, "DELETE")}
    changing |= {(f"{one}/{verb}", "POST") for verb in ("stop", "start", "savepoints", "rescale")}
    changing |= {(f"{one}/savepoints/{{savepoint}}", "DELETE")}
    looking = {("/v1/pipelines", "GET"), (one, "GET"), (f"{one}/plan", "POST")}
    looking |= {(f"{one}/{what}", "GET") for what in ("checkpoints", "graph", "errors", "why/{step}")}
    assert routes >= changing | looking | {("/docs", "GET"), ("/openapi.json", "GET")}
    for path, method in changing:
        assert roles()[path.format(name="x", savepoint="x"), method] == "admin"
    for path, method in looking:
        assert roles()[path.format(name="x", step="x"), method] == "read"
    assert {at for at, role in roles().items() if role == "anyone"} == PUBLIC


async def test_every_method_of_every_route_is_behind_the_guard() -> None:
    async with asking(secured()) as client:
        for path, method in every_route():
            role = role_of(path, method)
            if role == "anyone":
                continue
            at = f"{method} {path}"
            for credentials in ({}, bearer("nobodys-token-0123456789"), {"Authorization": "Basic eDp5"}):
                refused = await client.request(method, path, headers=credentials)
                assert refused.status_code == 401, at
                problem(refused, 401, "unauthorized")
                assert refused.headers["www-authenticate"].startswith("Bearer"), at
            reader = await client.request(method, path, headers=bearer(READ))
            admin = await client.request(method, path, headers=bearer(ADMIN))
            assert admin.status_code not in (401, 403), at
            assert (reader.status_code == 403) == (role == "admin"), at
            assert reader.status_code != 401, at
            if role is None:
                assert admin.status_code in (404, 405), at
                problem(admin, admin.status_code)
            if admin.status_code == 405:
                assert set(admin.headers["allow"].split(", ")) == {m for m in METHODS if role_of(path, m)}


async def test_a_reader_changes_nothing_whatever_they_send() -> None:
    service = Remembering({"p": "x"})
    async with asking(create_app(service, TOKENS), headers=bearer(READ)) as client:
        for body in (b"", b"{", b'{"parallelism": 2}', b"x" * 2_000_000):
            for method, path in (("PUT", ""), ("DELETE", ""), ("POST", "/stop"), ("POST", "/rescale")):
                problem(await client.request(method, f"/v1/pipelines/p{path}", content=body), 403, "forbidden")
    assert service.asked == []


async def test_a_token_may_be_configured_by_its_digest() -> None:
    digest = "sha256:" + hashlib.sha256(ADMIN.encode()).hexdigest()
    config = ServiceConfig(tokens=(TokenConfig(name="ada", role="admin", token=digest),))
    async with asking(create_app(Remembering(), config)) as client:
        assert (await client.get("/v1/pipelines", headers=bearer(ADMIN))).status_code == 200
        assert (await client.get("/v1/pipelines", headers=bearer(digest))).status_code == 401


def test_a_route_that_does_not_say_who_may_use_it_is_not_served() -> None:
    async def anything() -> Response:
        return PlainTextResponse("")

    silent, unguarded = APIRouter(route_class=GuardedRoute), APIRouter()
    with pytest.raises(TypeError, match="who may use it"):
        silent.add_api_route("/silent", anything)
    unguarded.add_api_route("/unguarded", needs("read")(anything))
    with pytest.raises(TypeError, match="who may use it"):
        create_app(Remembering(), TOKENS, page=unguarded)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "streams.example", "128.0.0.1"])
def test_beyond_the_loopback_callers_must_say_who_they_are(host: str) -> None:
    listen = ListenConfig(host=host)
    with pytest.raises(Unsecured, match=host) as raised:
        check_exposure(ServiceConfig(listen=listen))
    assert raised.value.acts == "user"
    with pytest.raises(Unsecured):
        check_exposure(ServiceConfig(listen=listen, tls=TlsConfig(certificate="c", key="k")))
    check_exposure(TOKENS.model_copy(update={"listen": listen}))
    tls = TlsConfig(certificate="c", key="k", clients=ClientCertificates(ca="ca"))
    check_exposure(ServiceConfig(listen=listen, tls=tls))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_the_loopback_may_be_open(host: str) -> None:
    check_exposure(ServiceConfig(listen=ListenConfig(host=host)))


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("localhost:8080", True),
        ("LOCALHOST:1", True),
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("[::1]", True),
        ("10.0.0.5:8080", True),
        ("streams.example", True),
        ("streams.example:443", True),
        ("pinned.example:8443", True),
        ("pinned.example", False),
        ("pinned.example:8444", False),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("localhost:8080:80", False),
        ("localhost:", False),
        ("evil@localhost", False),
        ("::1", False),
        ("", False),
    ],
)
async def test_the_host_must_be_one_of_our_names(host: str, allowed: bool) -> None:
    config = ServiceConfig(
        listen=ListenConfig(host="10.0.0.5"),
        tokens=TOKENS.tokens,
        allowed_hosts=("streams.example", "pinned.example:8443"),
    )
    async with asking(create_app(Remembering(), config)) as client:
        for path in ("/v1/pipelines", "/login", "/nothing"):
            response = await client.get(path, headers={"Host": host, **bearer(ADMIN)})
            assert (response.status_code != 400) == allowed
            if not allowed:
                problem(response, 400, "unknown-host")


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "http://localhost:8080"}, True),
        ({"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "http://localhost:9999"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8080"}, False),
    ],
)
async def test_pages_of_other_sites_change_nothing(headers: dict[str, str], allowed: bool) -> None:
    service = Remembering({"p": "x"})
    async with asking(create_app(service, ServiceConfig())) as client:
        changed = await client.post("/v1/pipelines/p/stop", headers=headers)
        looked = await client.get("/v1/pipelines/p", headers=headers)
    assert changed.status_code == (200 if allowed else 403)
    assert bool(service.asked) == allowed
    assert looked.status_code == 200
    assert not any(name.startswith("access-control") for name in looked.headers)


async def test_every_answer_carries_the_security_headers() -> None:
    async with asking(secured()) as client:
        for path in ("/v1/pipelines", "/login", "/docs.css", "/nothing"):
            for credentials in ({}, bearer(ADMIN)):
                response = await client.get(path, headers=credentials)
                assert response.headers["content-security-policy"] == CSP
                assert "frame-ancestors 'none'" in CSP
                assert response.headers["x-content-type-options"] == "nosniff"
                assert response.headers["referrer-policy"] == "same-origin"
                assert response.headers["cache-control"]
                assert "server" not in response.headers


# -- browsers


async def test_a_browser_is_led_to_the_login_and_back() -> None:
    async with asking(secured(), headers={"Accept": "text/html"}) as browser:
        away = await browser.get("/v1/pipelines?x=1")
        assert (away.status_code, away.headers["location"]) == (303, "/login?next=/v1/pipelines%3Fx%3D1")
        form = await browser.get(away.headers["location"])
        assert 'value="/v1/pipelines?x=1"' in form.text

        wrong = await browser.post("/login", data={"token": "nobodys-token-0123456789", "next": "/docs"})
        assert wrong.status_code == 401
        assert 'role="alert"' in wrong.text
        assert SESSION_COOKIE not in browser.cookies

        right = await browser.post("/login", data={"token": READ, "next": "/docs"})
        assert (right.status_code, right.headers["location"]) == (303, "/docs")
        cookie = right.headers["set-cookie"].lower()
        for attribute in ("httponly", "samesite=strict", "path=/", f"max-age={SESSION_SECONDS}"):
            assert attribute in cookie
        assert "secure" not in cookie  # no TLS here
        assert READ not in cookie
        assert (await browser.get("/v1/pipelines")).status_code == 200
        assert (await browser.post("/v1/pipelines/p/stop")).status_code == 403


async def test_the_cookie_is_for_tls_only_where_there_is_tls() -> None:
    async with asking(secured()) as browser:
        browser.base_url = httpx.URL("https://localhost:8443")
        answer = await browser.post("/login", data={"token": READ})
    assert "secure" in answer.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "", "/a\nb", "javascript:alert(1)"]
)
async def test_the_login_leads_nowhere_else(target: str) -> None:
    async with asking(secured()) as browser:
        answer = await browser.post("/login", data={"token": READ, "next": target})
    assert answer.headers["location"] == "/"


async def test_a_session_changes_things_only_with_its_own_forms_token() -> None:
    service = Remembering({"p": "x"})
    app = create_app(service, TOKENS)
    async with asking(app) as browser, asking(app) as other:
        await browser.post("/login", data={"token": ADMIN})
        await other.post("/login", data={"token": ADMIN})
        sessions: Sessions = app.state.sessions
        mine, others = (
            sessions.csrf_token(sessions.caller(one.cookies[SESSION_COOKIE]) or Caller("", "read", "open"))
            for one in (browser, other)
        )
        stop = "/v1/pipelines/p/stop"
        for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": others}, {"X-CSRF-Token": mine.upper()}):
            problem(await browser.post(stop, headers=headers), 403, "csrf")
        assert service.asked == []
        assert (await browser.post(stop, headers={"X-CSRF-Token": mine})).status_code == 200
        assert service.asked == [("stop", "p", False)]


async def test_logging_out_ends_the_session() -> None:
    app = secured()
    async with asking(app) as browser:
        await browser.post("/login", data={"token": ADMIN})
        session = browser.cookies[SESSION_COOKIE]
        caller = app.state.sessions.caller(session)
        problem(await browser.post("/logout"), 403, "csrf")
        ended = await browser.post("/logout", data={"csrf": app.state.sessions.csrf_token(caller)})
        assert ended.status_code == 303
        assert SESSION_COOKIE not in browser.cookies
        stale = await browser.get("/v1/pipelines", headers={"Cookie": f"{SESSION_COOKIE}={session}"})
        problem(stale, 401)


async def test_where_nobody_is_asked_a_form_must_still_be_of_our_page() -> None:
    router = APIRouter(route_class=GuardedRoute)

    @router.get("/form")
    @needs("read")
    async def form(request: Request) -> Response:
        return PlainTextResponse(csrf_token(request))

    @router.post("/press")
    @needs("admin")
    async def press() -> Response:
        return PlainTextResponse("done")

    async with asking(create_app(Remembering(), ServiceConfig(), page=router)) as browser:
        assert (await browser.get("/login")).headers["location"] == "/"
        problem(await browser.post("/press", data={"x": "1"}), 403, "csrf")
        token = (await browser.get("/form")).text
        assert (await browser.post("/press", data={"csrf": token})).text == "done"


def test_sessions_end_after_their_time_and_are_bounded() -> None:
    now = [0.0]
    sessions = Sessions(clock=lambda: now[0])
    ada = Caller("ada", "admin", "token")
    first = sessions.begin(ada)
    assert sessions.caller(first) is not None
    now[0] = SESSION_SECONDS - 1
    second = sessions.begin(ada)
    assert sessions.caller(first) is not None
    now[0] = SESSION_SECONDS
    assert sessions.caller(first) is None
    assert sessions.caller(second) is not None
    for _ in range(SESSIONS_MAX):
        last = sessions.begin(ada)
    assert sessions.caller(second) is None
    assert sessions.caller(last) is not None


# -- guessing


async def test_guesses_are_throttled_but_a_client_set_up_wrongly_is_not() -> None:
    async with asking(secured()) as client:
        for _ in range(3 * GUESSES_MAX):
            problem(await client.get("/v1/pipelines", headers=bearer("the-same-wrong-token")), 401)
        assert (await client.get("/v1/pipelines", headers=bearer(ADMIN))).status_code == 200
        for guess in range(GUESSES_MAX - 1):
            problem(await client.post("/login", data={"token": f"guess-{guess}"}), 401)
        refused = await client.get("/v1/pipelines", headers=bearer(ADMIN))
        problem(refused, 429, "too-many-attempts")
        assert 0 < int(refused.headers["retry-after"]) <= WINDOW_SECONDS + 1


def test_the_throttle_forgets_with_time_and_under_pressure() -> None:
    now = [0.0]
    throttle = Throttle(clock=lambda: now[0])
    for guess in range(GUESSES_MAX):
        throttle.failed("2001:db8::1", bytes([guess]))
    assert throttle.wait_seconds("2001:db8::ffff") == WINDOW_SECONDS  # the same network
    assert throttle.wait_seconds("2001:db8:0:1::1") == 0
    now[0] = WINDOW_SECONDS
    assert throttle.wait_seconds("2001:db8::1") == 0
    throttle.failed("2001:db8::1", b"x")
    assert throttle.wait_seconds("2001:db8::1") == 0

    for guess in range(GUESSES_MAX):
        throttle.failed("10.0.0.1", bytes([guess]))
    for address in range(ADDRESSES_MAX):
        throttle.failed(f"10.1.{address // 256}.{address % 256}", b"x")
    assert throttle.wait_seconds("10.0.0.1") == 0
