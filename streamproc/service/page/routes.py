"""The routes of the page. Each asks `PipelineApi`, and answers with HTML; a refusal becomes a page that says why."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs, quote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from state.failure import Failure
from streamproc.service.api import PipelineApi, ServiceFault
from streamproc.service.auth import caller_of
from streamproc.service.guard import GuardedRoute, form_fields, needs
from streamproc.service.page.drawing import draw
from streamproc.service.page.render import page, static_file
from streamproc.service.page.wording import count, problems_first
from streamproc.service.problem import Refusal, problem_of
from streamproc.service.views import CheckpointView, GraphView, PipelineDetail

CHECKPOINTS_SHOWN: Final = 12
ERRORS_SHOWN: Final = 20
LETTERS_SHOWN: Final = 50
_ID_CHARS_MAX: Final = 12

_CONFIRMED: Final = {  # title, what happens, button
    "stop": (
        "Stop {name}",
        (
            "It takes a last checkpoint, then stops. Open windows stay open in its state.",
            "Started again, it goes on from there: nothing is lost, nothing comes twice.",
        ),
        "Stop",
    ),
    "drain": (
        "Drain {name}",
        (
            "Its input ends here: every open window closes now and its results are committed, then it stops.",
            "Windows that were only half full give their results early. Rows for them that come after the next start"
            " open them again, and give a second result.",
        ),
        "Drain",
    ),
}
_DONE: Final = {
    "stop": "It stops with a last checkpoint.",
    "drain": "It drains: windows close, results are committed, then it stops.",
    "start": "It starts.",
    "savepoint": "Savepoint {n} is taken; it stays until somebody deletes it.",
    "rescale": "It goes on with a parallelism of {n}, from a savepoint.",
    "replay": "{n} dead letters were sent back to their source.",
}


def page_router(service: PipelineApi) -> APIRouter:
    """All pages, and their static files."""
    router = APIRouter(route_class=GuardedRoute, include_in_schema=False)

    def all_pipelines(request: Request) -> dict[str, Any]:
        pipelines = problems_first(service.list())
        return {
            "pipelines": pipelines,
            "unready": sum(not one.ready for one in pipelines),
            "now": _now(),
            "origin": f"{request.url.scheme}://{request.url.netloc}",
            "here": "pipelines",
        }

    seen: dict[str, tuple[object, tuple[CheckpointView, ...]]] = {}

    async def stored(detail: PipelineDetail) -> tuple[tuple[CheckpointView, ...], str]:
        """The checkpoints, or why they cannot be had. The store is asked when there is a new one, not each time
        somebody looks."""
        known_by = (detail.checkpoint, detail.savepoints, detail.state, detail.revision)
        if detail.name in seen and seen[detail.name][0] == known_by:
            return seen[detail.name][1], ""
        try:
            checkpoints = await service.checkpoints(detail.name)
        except Failure as failure:
            return (), str(failure)
        seen[detail.name] = known_by, checkpoints
        return checkpoints, ""

    async def one_pipeline(name: str) -> dict[str, Any]:
        detail, errors = service.get(name), service.errors(name)
        try:
            graph = service.graph(name)
        except Failure:  # its file has faults, which its message says: the rest of the page is worth having
            graph = GraphView(pipeline=name, live=False, nodes=(), edges=())
        checkpoints, fault = await stored(detail)
        return _pipeline_values(detail, graph, checkpoints) | {
            "errors": errors.model_copy(update={"errors": errors.errors[:ERRORS_SHOWN]}),
            "checkpoints_fault": fault,
        }

    @router.get("/static/{file}")
    @needs("anyone")
    async def static(file: str) -> Response:
        return static_file(file) or problem_of(Refusal(404, "not-found", "Not Found", "there is no such file"))

    @router.get("/")
    @needs("read")
    async def pipelines_page(request: Request) -> Response:
        return page(request, "pipelines.html", **all_pipelines(request), done=_done(request))

    @router.get("/live")
    @needs("read")
    async def pipelines_live(request: Request) -> Response:
        return page(request, "_pipelines.html", **all_pipelines(request))

    @router.get("/pipelines/{name}")
    @needs("read")
    async def pipeline_page(request: Request, name: str) -> Response:
        async def shown() -> Response:
            return page(request, "pipeline.html", **await one_pipeline(name), done=_done(request))

        return await _said(request, shown, back="/")

    @router.get("/pipelines/{name}/live")
    @needs("read")
    async def pipeline_live(request: Request, name: str) -> Response:
        return page(request, "_pipeline.html", **await one_pipeline(name))

    @router.get("/pipelines/{name}/why/{step}")
    @needs("read")
    async def why_page(request: Request, name: str, step: str) -> Response:
        async def shown() -> Response:
            return page(request, "why.html", why=service.why(name, step))

        return await _said(request, shown, back=_address(name))

    @router.get("/pipelines/{name}/why/{step}/live")
    @needs("read")
    async def why_live(request: Request, name: str, step: str) -> Response:
        return page(request, "_why.html", why=service.why(name, step))

    @router.get("/pipelines/{name}/actions/{action}")
    @needs("admin")
    async def confirm(request: Request, name: str, action: str) -> Response:
        async def shown() -> Response:
            if action not in _CONFIRMED:
                raise _no_action(action)
            title, says, button = _CONFIRMED[action]
            return page(
                request,
                "confirm.html",
                title=title.format(name=service.get(name).name),
                says=says,
                button=button,
                danger=True,
                name=name,
                back=_address(name),
                action=_address(name, "actions", action),
            )

        return await _said(request, shown, back=_address(name))

    @router.post("/pipelines/{name}/actions/{action}")
    @needs("admin")
    async def act(request: Request, name: str, action: str) -> Response:
        fields = form_fields(await request.body())

        async def done() -> Response:
            number = 0
            match action:
                case "stop" | "drain":
                    await service.stop(name, drain=action == "drain")
                case "start":
                    restore = fields.get("restore_from", "")
                    await service.start(name, restore_from=_whole(restore, "a checkpoint") if restore else None)
                case "savepoint":
                    number = (await service.savepoint(name)).id
                case "rescale":
                    number = _whole(fields.get("parallelism", ""), "the parallelism")
                    await service.rescale(name, number)
                case _:
                    raise _no_action(action)
            return RedirectResponse(f"{_address(name)}?done={action}&n={number}", status_code=303)

        return await _said(request, done, back=_address(name))

    @router.get("/pipelines/{name}/dead-letters/{sink}")
    @needs("read")
    async def dead_letters_page(request: Request, name: str, sink: str) -> Response:
        async def shown() -> Response:
            letters = await service.dead_letters(name, sink, LETTERS_SHOWN)
            return page(
                request,
                "dead_letters.html",
                name=name,
                sink=sink,
                letters=letters,
                payload=caller_of(request).role == "admin",
                done=_done(request),
            )

        return await _said(request, shown, back=_address(name))

    @router.get("/pipelines/{name}/dead-letters/{sink}/replay")
    @needs("admin")
    async def confirm_replay(request: Request, name: str, sink: str) -> Response:
        async def shown() -> Response:
            waiting = (await service.dead_letters(name, sink, 0)).waiting
            says = (
                f"{count(waiting)} letters wait. Their original keys and values are sent to their sources' own topics, "
                "each once. Letters whose original record is not known stay where they are.",
                "If what was wrong has not been mended, they come back as new dead letters.",
            )
            address = _address(name, "dead-letters", sink)
            return page(
                request,
                "confirm.html",
                title=f"Replay all dead letters of {sink}",
                says=says,
                button="Replay all",
                danger=False,
                name=name,
                back=address,
                action=f"{address}/replay?all=1",
            )

        return await _said(request, shown, back=_address(name))

    @router.post("/pipelines/{name}/dead-letters/{sink}/replay")
    @needs("admin")
    async def replay(request: Request, name: str, sink: str) -> Response:
        address = _address(name, "dead-letters", sink)
        body = await request.body()

        async def done() -> Response:
            ids = parse_qs(body.decode("ascii")).get("id", [])
            everything = request.query_params.get("all") == "1"
            if not ids and not everything:
                raise ServiceFault(422, "invalid-request", "Nothing is selected", "select the letters to replay")
            number = await service.replay(name, sink, None if everything else tuple(ids))
            return RedirectResponse(f"{address}?done=replay&n={number}", status_code=303)

        return await _said(request, done, back=address)

    return router


async def _said(request: Request, answer: Callable[[], Awaitable[Response]], *, back: str) -> Response:
    """The answer, or a page that says why there is none. Defects go on to the guard."""
    try:
        return await answer()
    except ServiceFault as fault:
        status, title, detail = fault.status, fault.title, str(fault)
    except Failure as failure:
        if failure.acts == "us":
            raise
        status, title, detail = 503 if failure.acts == "world" else 422, "That cannot be done", str(failure)
    return page(request, "problem.html", status, title=title, detail=detail, back=back)


def _pipeline_values(
    detail: PipelineDetail, graph: GraphView, checkpoints: tuple[CheckpointView, ...]
) -> dict[str, Any]:
    now = _now()
    return {
        "pipeline": detail,
        "ended": detail.state in ("failed", "stopped", "drained", "finished"),
        "graph": graph,
        "drawing": draw(graph),
        "checkpoints": checkpoints[:CHECKPOINTS_SHOWN],
        "checkpoints_left": len(checkpoints[CHECKPOINTS_SHOWN:]),
        "restorable": [one for one in checkpoints if one.damage is None][: 2 * CHECKPOINTS_SHOWN],
        "unbalanced": [entry.node for entry in detail.ledger if entry.unaccounted],
        "dead_letter_sinks": _dead_letter_sinks(graph),
        "now": now,
    }


def _dead_letter_sinks(graph: GraphView) -> list[str]:
    """Sinks that read nothing but bad records."""
    reads = {
        node.name: [edge.stream for edge in graph.edges if edge.downstream == node.name]
        for node in graph.nodes
        if node.kind == "sink"
    }
    return [sink for sink, streams in reads.items() if streams and all(one.endswith(".errors") for one in streams)]


def _done(request: Request) -> str:
    """What has just been done, in our own words: the address may have been made up by somebody else."""
    text = _DONE.get(request.query_params.get("done", ""), "")
    number = request.query_params.get("n", "")
    known = number.isascii() and number.isdecimal() and len(number) <= _ID_CHARS_MAX
    return text.format(n=int(number) if known else "a number of") if text else ""


def _whole(text: str, what: str) -> int:
    """A positive whole number of a form."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _ID_CHARS_MAX and int(text) > 0):
        raise ServiceFault(422, "invalid-request", "That cannot be done", f"{what} must be a whole number above 0")
    return int(text)


def _no_action(action: str) -> ServiceFault:
    return ServiceFault(404, "not-found", "There is no such action", f"nothing can be done that is called {action}")


def _address(name: str, *more: str) -> str:
    return "/".join(["/pipelines", *(quote(part, safe="") for part in (name, *more))])


def _now() -> datetime:
    return datetime.now(UTC)
