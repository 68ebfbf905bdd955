"""REST: what each route asks the service, and that whatever goes wrong is a problem."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, NoReturn
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state.failure import Failure, StoreUnavailable
from streamproc.pipeline.faults import Fault
from streamproc.service.api import Conflict, DropsState, FaultyPipeline, PlanOutdated, ServiceFault
from streamproc.service.app import create_app
from streamproc.service.config import ServiceConfig
from streamproc.service.front import REQUESTS_MAX
from streamproc.service.guard import GuardedRoute, needed
from streamproc.service.problem import MEDIA_TYPE
from streamproc.service.views import PlanView, StepChange
from tests.eventually import eventually
from tests.unit.service.asking import Remembering, asking, problem

ONE = "/v1/pipelines/p"
PLAN = PlanView(
    id="p1",
    pipeline="p",
    revision=1,
    action="upgrade",
    drops_state=True,
    checkpoint=None,
    changes=(StepChange(name="revenue", kind="step", change="removed", state="dropped"),),
)


def open_app(service: Remembering | None = None, **config: Any) -> FastAPI:
    return create_app(service or Remembering(), ServiceConfig(**config))


async def test_putting_creates_then_answers_200() -> None:
    service = Remembering()
    async with asking(open_app(service)) as client:
        first = await client.put(ONE, content="version: 1", headers={"Content-Type": "application/yaml"})
        second = await client.put(f"{ONE}?plan=p1&drop_state=true", content="version: 1")
    assert (first.status_code, first.headers["location"]) == (201, ONE)
    assert second.status_code == 200
    assert second.json()["yaml"] == "version: 1"
    assert service.asked == [("put", "p", b"version: 1", None, False), ("put", "p", b"version: 1", "p1", True)]


@pytest.mark.parametrize(
    "kind", [None, "application/yaml", "text/yaml; charset=utf-8", "text/plain", "application/x-www-form-urlencoded"]
)
async def test_a_file_is_taken_as_tools_send_it(kind: str | None) -> None:
    service = Remembering()
    headers = {} if kind is None else {"Content-Type": kind}
    async with asking(open_app(service)) as client:
        for request in (client.put(ONE, content=b"a: 1", headers=headers),
                        client.post(f"{ONE}/plan", content=b"a: 1", headers=headers)):  # fmt: skip
            assert (await request).status_code in (200, 201)
    assert [asked[:3] for asked in service.asked] == [("put", "p", b"a: 1"), ("plan", "p", b"a: 1")]


async def test_what_is_asked_of_a_pipeline() -> None:
    service = Remembering({"p": "x"})
    async with asking(open_app(service)) as client:
        bodies: list[tuple[str, Any, tuple[Any, ...]]] = [
            ("stop", None, ("stop", "p", False)),
            ("stop", {}, ("stop", "p", False)),
            ("stop", {"drain": True}, ("stop", "p", True)),
            ("start", None, ("start", "p", None)),
            ("start", {"from": None}, ("start", "p", None)),
            ("start", {"from": 12}, ("start", "p", 12)),
            ("rescale", {"parallelism": 3}, ("rescale", "p", 3)),
        ]
        for verb, body, asked in bodies:
            answer = await client.post(f"{ONE}/{verb}", **({} if body is None else {"json": body}))
            assert answer.status_code == 200, answer.text
            assert service.asked.pop() == asked
        for what in ("", "/checkpoints", "/graph", "/errors", "/why/revenue"):
            assert (await client.get(ONE + what)).status_code == 200
        gone = await client.delete(ONE)
        assert (gone.status_code, gone.content) == (204, b"")
        problem(await client.get(ONE), 404, "unknown-pipeline")
        problem(await client.delete(ONE), 404)
        assert (await client.get("/v1/pipelines")).json() == {"pipelines": []}


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("stop", b'{"drain": "yes"}'),
        ("stop", b'{"drian": true}'),
        ("stop", b"[]"),
        ("stop", b"{"),
        ("savepoints", b"[]"),
        ("savepoints", b'{"name": "before the upgrade"}'),
        ("start", b'{"from": "latest"}'),
        ("start", b'{"from": 0}'),
        ("start", b'{"from": 1e400}'),
        ("rescale", b""),
        ("rescale", b"{}"),
        ("rescale", b'{"parallelism": 0}'),
        ("rescale", b'{"parallelism": 100000}'),
        ("rescale", b'{"parallelism": true}'),
        ("rescale", b'{"parallelism": 2.5}'),
    ],
)
async def test_a_body_that_is_not_as_it_must_be_is_refused(verb: str, body: bytes) -> None:
    service = Remembering({"p": "x"})
    async with asking(open_app(service)) as client:
        answer = await client.post(f"{ONE}/{verb}", content=body, headers={"Content-Type": "application/json"})
    assert problem(answer, 422, "invalid-request")["errors"][0]["path"].startswith("body")
    assert service.asked == []


async def test_other_media_types_are_refused() -> None:
    async with asking(open_app(Remembering({"p": "x"}))) as client:
        for method, path, kind in (
            ("PUT", ONE, "image/png"),
            ("PUT", ONE, "multipart/form-data; boundary=x"),
            ("POST", f"{ONE}/stop", "text/plain"),
            ("POST", f"{ONE}/savepoints", "text/plain"),
            ("POST", f"{ONE}/stop", "application/x-www-form-urlencoded"),
        ):
            answer = await client.request(method, path, content=b"{}", headers={"Content-Type": kind})
            assert "application/" in problem(answer, 415)["detail"]


@pytest.mark.parametrize("name", ["Upper", "under_score", "1st", "a" * 64, "a.b", "%20", "a%0A"])
async def test_a_name_that_no_file_can_have_is_not_put(name: str) -> None:
    service = Remembering()
    async with asking(open_app(service)) as client:
        refused = problem(await client.put(f"/v1/pipelines/{name}", content=b"a: 1"), 422)
    assert "must be lower-case letters, digits and -, beginning with a letter" in refused["detail"]
    assert service.asked == []


@pytest.mark.parametrize("name", ["nope", "under_score", "a" * 64, "%20", "a%0A", "%C3%A9"])
async def test_a_name_that_nobody_has_is_unknown_whatever_it_is(name: str) -> None:
    async with asking(open_app(Remembering({"p": "x"}))) as client:
        for path in ("", "/checkpoints", "/graph", "/errors", "/why/revenue"):
            problem(await client.get(f"/v1/pipelines/{name}{path}"), 404, "unknown-pipeline")
        for verb in ("stop", "start", "savepoints"):
            problem(await client.post(f"/v1/pipelines/{name}/{verb}"), 404, "unknown-pipeline")
        problem(await client.delete(f"/v1/pipelines/{name}"), 404, "unknown-pipeline")


async def test_a_method_that_is_not_taken_is_told_which_are() -> None:
    async with asking(open_app(Remembering({"p": "x"}))) as client:
        for method, path, allowed in (
            ("PATCH", ONE, "DELETE, GET, HEAD, PUT"),
            ("OPTIONS", "/v1/pipelines", "GET, HEAD"),
            ("GET", f"{ONE}/stop", "POST"),
        ):
            answer = await client.request(method, path)
            problem(answer, 405)
            assert answer.headers["allow"] == allowed


# -- what goes wrong


async def asked_with(error: Exception) -> httpx.Response:
    service = Remembering({"p": "x"}, fails=error)
    async with asking(open_app(service)) as client:
        return await client.put(ONE, content=b"a: 1")


async def test_all_faults_of_a_file_are_listed_with_their_places() -> None:
    faults = (
        Fault("p.yaml", 3, 5, "sources.a.tpye", "unknown field 'tpye'", "did you mean 'type'?"),
        Fault("p.yaml", 7, 1, "sinks", "is missing"),
    )
    found = problem(await asked_with(FaultyPipeline(faults)), 422, "faulty-pipeline")
    assert found["errors"] == [fault.as_json() for fault in faults]
    assert found["errors"][0] == {
        "file": "p.yaml",
        "line": 3,
        "column": 5,
        "path": "sources.a.tpye",
        "message": "unknown field 'tpye'",
        "hint": "did you mean 'type'?",
        "severity": "error",
    }


@pytest.mark.parametrize("error", [DropsState(PLAN), PlanOutdated(PLAN)])
async def test_a_refusal_for_its_plan_shows_the_plan(error: ServiceFault) -> None:
    found = problem(await asked_with(error), 409, error.slug)
    assert PlanView.model_validate(found["plan"], strict=False) == PLAN


class OfTheUser(Failure):
    acts = "user"


@pytest.mark.parametrize(
    ("error", "status"),
    [(Conflict("it is stopped"), 409), (StoreUnavailable("no answer"), 503), (OfTheUser("no such folder"), 422)],
)
async def test_failures_say_what_is_wrong(error: Exception, status: int) -> None:
    assert problem(await asked_with(error), status)["detail"] == str(error)


async def test_a_defect_shows_an_id_and_the_log_has_the_rest(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = await asked_with(KeyError("a secret detail"))
    found = problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert found["instance"].startswith("urn:uuid:")
    said = capsys.readouterr()
    assert found["instance"] in caplog.text + said.out + said.err


async def test_a_defect_outside_any_route_is_a_problem_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, scope: Any) -> Any:
        raise ZeroDivisionError("a secret detail")

    app = open_app()
    monkeypatch.setattr(GuardedRoute, "matches", broken)
    async with asking(app) as client:
        answer = await client.get("/v1/pipelines")
    problem(answer, 500)
    assert "secret" not in answer.text
    assert "content-security-policy" in answer.headers


texts = st.text(st.characters(codec="utf-8"), max_size=30)


@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "X"]),
    path=st.sampled_from(["/v1/pipelines/p", "/v1/pipelines/p/stop", "/v1/pipelines/p/rescale", "/v1", "/openapi.json"])
    | texts.map(lambda text: "/v1/pipelines/" + text)
    | texts.map(lambda text: "/" + text),
    query=st.dictionaries(st.sampled_from(["plan", "drop_state", "x"]), texts),
    body=st.binary(max_size=40) | st.sampled_from([b"{}", b"null", b'{"parallelism":2}', b"a: 1"]),
    kind=st.sampled_from(["application/json", "application/yaml", "", "a/b", "text/plain", "multipart/form-data"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_sent_errors_are_problems(
    method: str, path: str, query: dict[str, str], body: bytes, kind: str
) -> None:
    async def send() -> httpx.Response:
        async with asking(open_app(Remembering({"p": "x"}))) as client:
            url = httpx.URL(quote(path), params=query)
            return await client.request(method, url, content=body, headers={"Content-Type": kind})

    logging.disable(logging.CRITICAL)
    try:
        answer = asyncio.run(send())
    finally:
        logging.disable(logging.NOTSET)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        problem(answer, answer.status_code)


# -- limits


async def in_parts(size: int, of: int = 700) -> AsyncIterator[bytes]:
    for begin in range(0, size, of):
        yield b"x" * min(of, size - begin)


async def test_bodies_are_bounded_with_and_without_a_length() -> None:
    service = Remembering()
    async with asking(open_app(service, body_bytes_max=2048)) as client:
        assert (await client.put(ONE, content=b"x" * 2048)).status_code == 201
        assert (await client.put(ONE, content=in_parts(2048))).status_code == 200
        problem(await client.put(ONE, content=b"x" * 2049), 413, "body-too-large")
        problem(await client.put(ONE, content=in_parts(2049)), 413)
        problem(await client.post(f"{ONE}/stop", content=in_parts(9000)), 413)
        problem(await client.post("/login", content=b"token=" + b"x" * 9000), 413)
    assert len(service.asked) == 2


async def test_only_so_many_requests_are_answered_at_once() -> None:
    class Slow(Remembering):
        released = asyncio.Event()
        waiting = 0

        async def stop(self, name: str, *, drain: bool = False) -> Any:
            self.waiting += 1
            await self.released.wait()
            return self.get(name)

    service = Slow({"p": "x"})
    async with asking(open_app(service)) as client:
        stops = [asyncio.create_task(client.post(f"{ONE}/stop")) for _ in range(REQUESTS_MAX)]
        await eventually(lambda: service.waiting == REQUESTS_MAX)
        refused = await client.get(ONE)
        problem(refused, 503, "busy")
        assert refused.headers["retry-after"]
        service.released.set()
        assert {stop.status_code for stop in await asyncio.gather(*stops)} == {200}
        assert (await client.get(ONE)).status_code == 200


# -- the description


async def test_the_description_is_complete() -> None:
    app = open_app()
    async with asking(app) as client:
        document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert set(document["components"]["securitySchemes"]) == {"token", "certificate", "session"}
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    described = [route for route in app.routes if isinstance(route, GuardedRoute) and route.include_in_schema]
    assert len(operations) == len(described) >= 13
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert operation["summary"]
        assert operation["security"]
        for status, response in operation["responses"].items():
            assert response["description"]
            if int(status) >= 400:
                assert list(response["content"]) == [MEDIA_TYPE], (operation["operationId"], status)
        assert {"401", "403", "422", "500", "503"} <= operation["responses"].keys()
        for parameter in operation.get("parameters", ()):
            assert parameter["description"]
    references = set(_references(document))
    assert references <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert "HTTPValidationError" not in json.dumps(document)
    assert {needed(route) for route in described} == {"read", "admin"}


class Unplanned(Remembering):
    """Its file has had errors since the service came back."""

    def graph(self, name: str) -> NoReturn:
        raise Conflict(f"the file of {name} has errors")

    def why(self, name: str, step: str) -> NoReturn:
        raise Conflict(f"the file of {name} has errors")


async def test_what_is_answered_of_a_pipeline_that_cannot_be_planned_is_described() -> None:
    async with asking(open_app(Unplanned({"p": "x"}))) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
        for what, asked in (("graph", "graph"), ("why/{step}", "why/revenue")):
            problem(await client.get(f"{ONE}/{asked}"), 409, "conflict")
            assert "409" in paths[f"/v1/pipelines/{{name}}/{what}"]["get"]["responses"]


def _references(value: Any) -> list[str]:
    match value:
        case {"$ref": str(reference)}:
            return [reference]
        case dict():
            return [found for inner in value.values() for found in _references(inner)]
        case list():
            return [found for inner in value for found in _references(inner)]
    return []


async def test_the_page_of_the_description_needs_nothing_from_elsewhere() -> None:
    async with asking(open_app()) as client:
        page = await client.get("/docs")
        style = await client.get("/docs.css")
    assert page.headers["content-type"].startswith("text/html")
    assert style.headers["content-type"].startswith("text/css")
    for operation in ("putPipeline", "rescalePipeline", "explainSilence"):
        assert f'id="{operation}"' in page.text
    for foreign in ("http://", "https://", "<script", "style=", "<style"):
        assert foreign not in page.text
    assert "url(" not in style.text
