"""The pages as they are answered: what names and errors hold is text, never markup; forms need their token."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest
from starlette.types import ASGIApp

from streamproc.service.app import create_app
from streamproc.service.config import ServiceConfig, TokenConfig
from streamproc.service.guard import GuardedRoute, needed
from streamproc.service.page.routes import page_router
from streamproc.service.views import DeadLetterView, ErrorList, ErrorView, GraphView
from tests.shown_pipelines import ShownPipelines, edge, failed, node, now, pipeline, revenue_graph

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"
READER, ADMIN = "reader-token-0123456789", "admin-token-0123456789"


@pytest.fixture
def shown() -> ShownPipelines:
    return ShownPipelines()


def asking(app: ASGIApp, headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://localhost", follow_redirects=True, headers=headers
    )


@pytest.fixture
async def client(shown: ShownPipelines) -> AsyncIterator[httpx.AsyncClient]:
    async with asking(create_app(shown, ServiceConfig(), page=page_router(shown))) as client:
        yield client


def csrf(text: str) -> str:
    [token, *_] = re.findall(r'name="csrf" value="([^"]+)"', text)
    return str(token)


async def test_no_pipelines_says_how_to_apply_one(client: httpx.AsyncClient) -> None:
    text = (await client.get("/")).text
    assert "streamproc apply" in text
    assert "curl -X PUT" in text


async def test_problems_come_first(client: httpx.AsyncClient, shown: ShownPipelines) -> None:
    for detail in (pipeline("a-good"), pipeline("b-finished", state="finished"), failed("c-failed")):
        shown.show(detail)
    shown.show(pipeline("d-waiting", state="waiting", ready=False))
    text = (await client.get("/")).text
    names = re.findall(r'id="row-([\w-]+)"', text)
    assert names == ["c-failed", "d-waiting", "a-good", "b-finished"]
    assert "2 not as wanted" in text


async def test_what_pipelines_hold_is_text(client: httpx.AsyncClient, shown: ShownPipelines) -> None:
    bad = failed("hostile").model_copy(update={"message": HOSTILE, "yaml": HOSTILE, "warnings": (HOSTILE,)})
    failure = bad.failures[0].model_copy(update={"message": HOSTILE, "type": HOSTILE})
    graph = revenue_graph("hostile")
    odd = node(HOSTILE, "sink", does=(HOSTILE,))
    graph = graph.model_copy(update={"nodes": (*graph.nodes, odd), "edges": (*graph.edges, edge("revenue", HOSTILE))})
    shown.show(bad.model_copy(update={"failures": (failure,)}), graph)
    shown.letters = (
        DeadLetterView(
            id="0:1",
            at=now(),
            node=HOSTILE,
            source=HOSTILE,
            split=HOSTILE,
            offset=1,
            error=HOSTILE,
            key=HOSTILE,
            value=HOSTILE,
        ),
    )
    for address in ("/", "/pipelines/hostile", "/pipelines/hostile/dead-letters/dead", "/pipelines/hostile/why/late"):
        text = (await client.get(address)).text
        assert "<img src=x" not in text
        assert "<script>alert" not in text
        assert re.findall(r"<script[^>]*>", text) == re.findall(r'<script src="/static/page\.js\?\w+" defer>', text)
        assert "49" not in re.findall(r"onerror=alert\(2\)&gt;(.{9})", text), "a template of theirs was run"


async def test_a_node_that_has_not_begun_is_not_idle(client: httpx.AsyncClient, shown: ShownPipelines) -> None:
    graph = revenue_graph("orders")
    begun = [each.model_copy(update={"busy": 0.0, "backpressured": 0.0, "idle": 0.0}) for each in graph.nodes]
    shown.show(pipeline("orders", state="starting", ready=False), graph.model_copy(update={"nodes": tuple(begun)}))
    text = (await client.get("/pipelines/orders")).text
    assert text.count("<td>not running</td>") == len(begun)
    assert "<td>idle</td>" not in text


async def test_what_does_not_run_shows_no_figures_of_nodes(client: httpx.AsyncClient, shown: ShownPipelines) -> None:
    graph = revenue_graph("orders")
    shown.show(pipeline("orders", state="drained", wanted="drained"), graph.model_copy(update={"live": False}))
    text = (await client.get("/pipelines/orders")).text
    [rows] = re.findall(r'<table id="nodes">.*?<tbody>(.*?)</tbody>', text, re.DOTALL)
    figures = re.findall(r'<td class="number[^"]*">([^<]*)</td>', rows)
    assert set(figures) == {"–"}
    assert len(figures) == 13 * len(graph.nodes)


async def test_a_card_says_on_which_side_of_the_clock_its_watermark_is(
    client: httpx.AsyncClient, shown: ShownPipelines
) -> None:
    nodes = (node("old", "source", watermark_lag_seconds=89.0), node("early", "source", watermark_lag_seconds=-2.0))
    shown.show(pipeline("orders"), GraphView(pipeline="orders", live=True, nodes=nodes, edges=()))
    text = (await client.get("/pipelines/orders")).text
    assert re.findall(r'<text class="watermark"[^>]*>([^<]*)<', text) == [
        "watermark 1 min behind",
        "watermark 2 s ahead",
    ]


async def test_a_drain_is_confirmed_knowing_that_windows_open_again(
    client: httpx.AsyncClient, shown: ShownPipelines
) -> None:
    shown.show(pipeline("orders"), revenue_graph("orders"))
    text = (await client.get("/pipelines/orders/actions/drain")).text
    assert "open them again" in text
    assert "late" not in text


async def test_bytes_in_hex_are_told_where_they_are(client: httpx.AsyncClient, shown: ShownPipelines) -> None:
    shown.show(pipeline("orders"), revenue_graph("orders"))
    letter = DeadLetterView(
        id="0:1",
        at=now(),
        node="orders",
        source="orders",
        split="orders-0",
        offset=1,
        error="bad",
        key="0001",
        key_binary=True,
        value="text",
    )
    shown.letters = (letter,)
    text = (await client.get("/pipelines/orders/dead-letters/dead")).text
    assert "<code>0001</code><small>bytes in hex</small>" in text
    assert text.count("bytes in hex") == 1


async def test_a_failure_is_no_bad_record() -> None:
    class WithoutBadRecords(ShownPipelines):
        def errors(self, name: str) -> ErrorList:
            return ErrorList(total=0, errors=(ErrorView(at=now(), node=None, error="the broker is gone"),))

    shown = WithoutBadRecords()
    shown.show(failed("orders"), revenue_graph("orders"))
    async with asking(create_app(shown, ServiceConfig(), page=page_router(shown))) as client:
        text = (await client.get("/pipelines/orders")).text
    assert "Failures of the job" in text
    assert "Records that could not be read" not in text


async def test_nothing_is_inline(client: httpx.AsyncClient, shown: ShownPipelines) -> None:
    shown.show(pipeline("orders"), revenue_graph("orders"))
    for address in ("/", "/pipelines/orders", "/pipelines/orders/why/revenue", "/pipelines/orders/actions/stop"):
        answer = await client.get(address)
        assert answer.status_code == 200
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert re.findall(r'\sstyle=|<style|\son\w+="', answer.text) == []
        assert re.findall(r'(?:src|href)="(?:https?:)?//', answer.text) == []


async def test_a_form_needs_its_token(client: httpx.AsyncClient, shown: ShownPipelines) -> None:
    shown.show(pipeline("orders"), revenue_graph("orders"))
    assert (await client.post("/pipelines/orders/actions/savepoint", data={"csrf": "no"})).status_code == 403
    token = csrf((await client.get("/pipelines/orders")).text)
    answer = await client.post("/pipelines/orders/actions/savepoint", data={"csrf": token})
    assert "Savepoint 40 is taken" in answer.text
    assert shown.asked == [("savepoint", "orders")]


async def test_what_is_refused_is_a_page_that_says_why(client: httpx.AsyncClient, shown: ShownPipelines) -> None:
    shown.show(pipeline("orders"), revenue_graph("orders"))
    token = csrf((await client.get("/pipelines/orders")).text)
    for parallelism, status, says in (
        ("4096", 409, "max_parallelism"),
        ("-1", 422, "whole number"),
        ("²", 422, "whole"),
    ):
        answer = await client.post(
            "/pipelines/orders/actions/rescale", data={"csrf": token, "parallelism": parallelism}
        )
        assert (answer.status_code, says in answer.text) == (status, True)
    assert (await client.get("/pipelines/nowhere")).status_code == 404
    assert "There is no such pipeline" in (await client.get("/pipelines/nowhere")).text
    assert (await client.get("/pipelines/orders/actions/explode")).status_code == 404
    assert (await client.get("/pipelines/orders?done=savepoint&n=<b>")).text.count("<b>") == 0
    assert (await client.get("/static/page.css")).headers["content-type"].startswith("text/css")
    assert (await client.get("/static/nothing")).status_code == 404
    assert shown.asked == []


async def test_a_reader_sees_neither_actions_nor_payloads(shown: ShownPipelines) -> None:
    shown.show(pipeline("orders"), revenue_graph("orders"))
    letter = DeadLetterView(
        id="0:1",
        at=now(),
        node="orders",
        source="orders",
        split="orders-0",
        offset=1,
        error="bad",
        key="k",
        value="secret",
    )
    shown.letters = (letter,)
    tokens = tuple(
        TokenConfig(name=role, role=role, token=token)  # type: ignore[arg-type]
        for role, token in (("read", READER), ("admin", ADMIN))
    )
    app = create_app(shown, ServiceConfig(tokens=tokens), page=page_router(shown))
    address = "/pipelines/orders/dead-letters/dead"
    async with asking(app, {"accept": "text/html"}) as client:
        assert (await client.get("/", follow_redirects=False)).headers["location"] == "/login?next=/"
        assert (await client.get("/static/page.css")).status_code == 200
        as_reader = {"authorization": f"Bearer {READER}"}
        assert "Take a savepoint" not in (await client.get("/pipelines/orders", headers=as_reader)).text
        assert "secret" not in (await client.get(address, headers=as_reader)).text
        assert (await client.get(f"{address}/replay", headers=as_reader)).status_code == 403
        assert (await client.get(f"/v1{address}", headers=as_reader)).status_code == 403
        (await client.post("/login", data={"token": ADMIN, "next": "/"}))
        text = (await client.get(address)).text
        assert "secret" in text
        assert "Log out" in text
        answer = await client.post(f"{address}/replay", data={"csrf": csrf(text), "id": ["0:1", "0:2"]})
        assert "2 dead letters were sent back" in answer.text
        assert shown.asked == [("replay", "orders", "dead", ("0:1", "0:2"))]


async def test_who_may_use_each_route(shown: ShownPipelines) -> None:
    app = create_app(shown, ServiceConfig(), page=page_router(shown))
    ours = [route for route in app.routes if isinstance(route, GuardedRoute) and "/pipelines" in route.path]
    roles = {(method, route.path): needed(route) for route in ours for method in route.methods or ()}
    assert {role for (method, path), role in roles.items() if method == "POST" and not path.endswith("plan")} == {
        "admin"
    }
    assert {path for (method, path), role in roles.items() if role == "admin" and method == "GET"} == {
        "/pipelines/{name}/actions/{action}",
        "/pipelines/{name}/dead-letters/{sink}/replay",
        "/v1/pipelines/{name}/dead-letters/{sink}",
    }
    assert "anyone" not in roles.values()
