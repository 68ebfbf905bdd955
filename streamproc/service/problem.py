"""Every error leaves as `application/problem+json` (RFC 9457), made here from the exception that says what is wrong.

What only we can mend shows an id and nothing else; the log has the rest under that id.
"""

from __future__ import annotations

import http
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from state.failure import Failure
from streamproc.pipeline.faults import Fault
from streamproc.pipeline.wording import pattern_text
from streamproc.service.api import DropsState, FaultyPipeline, PlanOutdated, ServiceFault

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:streamproc:problem:"

_INPUT_SHOWN_CHARS: Final = 200

log = structlog.get_logger("streamproc.service")


class Refusal(Exception):
    """A request that the HTTP side refuses before anybody is asked."""

    def __init__(
        self, status: int, slug: str, title: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.slug, self.title, self.detail = status, slug, title, detail
        self.headers = dict(headers or {})


class ProblemResponse(JSONResponse):
    """A problem. `more` are its extension members."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str = "",
        *,
        instance: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        content: dict[str, Any] = {"type": TYPE_PREFIX + slug, "title": title, "status": status, "detail": detail}
        if instance is not None:
            content["instance"] = instance
        super().__init__(content | more, status_code=status, headers=headers)


def problem_of(error: Exception) -> ProblemResponse:
    """The answer to a request that ended with `error`."""
    match error:
        case Refusal():
            return ProblemResponse(error.status, error.slug, error.title, error.detail, headers=error.headers)
        case ServiceFault():
            return ProblemResponse(error.status, error.slug, error.title, str(error), **_details(error))
        case RequestValidationError():
            wrong = [_wrong(fault) for fault in error.errors()]
            detail = "; ".join(f"{one['path']}: {one['message']}" for one in wrong)
            return ProblemResponse(422, "invalid-request", "The request is not as it must be", detail, errors=wrong)
        case HTTPException():
            return _of_http(error)
        case Failure() if error.acts == "user":
            return ProblemResponse(422, "refused", "The request cannot be done", str(error))
        case Failure() if error.acts == "world":
            headers = {"Retry-After": "5"} if error.retry_helps else None
            return ProblemResponse(503, "unavailable", "Something outside does not answer", str(error), headers=headers)
    return defect(error)


def defect(error: BaseException) -> ProblemResponse:
    """500: the log knows why."""
    instance = uuid.uuid4().urn
    log.error("a request failed", instance=instance, exc_info=error)
    detail = "this is a defect in streamproc; the service's log has it under the instance given here"
    return ProblemResponse(500, "internal", "Internal error", detail, instance=instance)


def _details(fault: ServiceFault) -> dict[str, Any]:
    match fault:
        case FaultyPipeline():
            return {"errors": faults_as_json(fault.faults)}
        case DropsState() | PlanOutdated():
            return {"plan": fault.plan.model_dump(mode="json", by_alias=True)}
    return {}


def faults_as_json(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    """As `validate --json` gives them: file, line, column, path, message, hint, severity."""
    return [fault.as_json() for fault in faults]


def _wrong(fault: Mapping[str, Any]) -> dict[str, Any]:
    """One thing wrong with a request; what was given is not said again."""
    where = [str(part) for part in fault["loc"]]
    message = str(fault["msg"])[:_INPUT_SHOWN_CHARS]
    if fault["type"] == "json_invalid":
        where, message = ["body"], f"is not JSON: {fault['ctx']['error']}"
    if fault["type"] == "string_pattern_mismatch":
        message = pattern_text(fault["ctx"]["pattern"])
    return {"path": ".".join(where), "message": message}


def _of_http(error: HTTPException) -> ProblemResponse:
    try:
        title = http.HTTPStatus(error.status_code).phrase
    except ValueError:
        title = "Error"
    detail = error.detail if error.detail and error.detail != title else ""
    if error.status_code == 404:
        detail = detail or "nothing is here; /docs lists what is"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        detail = detail or f"what is here takes {allowed or 'other methods'}"
    slug = title.lower().replace(" ", "-")
    return ProblemResponse(error.status_code, slug, title, detail, headers=error.headers)
