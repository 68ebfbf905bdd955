"""Templates and static files of the page. Everything that comes from a pipeline is escaped; nothing is inline, so
that the content security policy allows files of ours and nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from streamproc.service.auth import CSRF_FIELD, Caller, csrf_token
from streamproc.service.page import drawing, wording

_STATIC: Final = resources.files("streamproc.service.page") / "static"
_TYPES: Final = {"page.css": "text/css", "page.js": "text/javascript", "mark.svg": "image/svg+xml"}
STATIC_FILES: Final = {name: (_STATIC / name).read_bytes() for name in _TYPES}
VERSION: Final = hashlib.sha256(b"".join(STATIC_FILES.values())).hexdigest()[:12]  # a new release is a new address


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks."""

    name: str
    role: str
    may_change: bool
    can_log_out: bool


def static_file(name: str) -> Response | None:
    """One of the three files; None for any other name."""
    if name not in STATIC_FILES:
        return None
    headers = {"Cache-Control": "public, max-age=86400"}
    return Response(STATIC_FILES[name], media_type=_TYPES[name], headers=headers)


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A template as an answer; with who looks, and what their forms need to hold."""
    caller = request.scope["state"].get("caller")
    visitor, field = None, Markup()
    if isinstance(caller, Caller):
        visitor = Visitor(caller.name, caller.role, caller.role == "admin", caller.via == "session")
        field = Markup('<input type="hidden" name="{}" value="{}">').format(CSRF_FIELD, csrf_token(request))
    text = _templates.get_template(template).render(visitor=visitor, csrf_field=field, **values)
    return HTMLResponse(text, status_code=status)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("streamproc.service.page", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "age": wording.age,
        "clock": wording.clock,
        "count": wording.count,
        "duration": wording.duration,
        "exact": lambda number: f"{number:,}",
        "lag": wording.lag,
        "moment": wording.moment,
        "percent": wording.percent,
        "rate": wording.rate,
        "share": wording.fine_share,
        "size": wording.size,
    }
    environment.globals |= {
        "actors": wording.ACTORS,
        "here": "",
        "kinds": wording.CHECKPOINT_KINDS,
        "loads": drawing.LOADS,
        "states": wording.STATES,
        "version": VERSION,
    }
    return environment


_templates: Final = _environment()
