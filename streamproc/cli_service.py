"""The command line's service half: commands that ask a running service. Loads nothing of it before one is called.

How to reach the service is asked alike by all of them: `asks_service` adds those options to what a command has.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

if TYPE_CHECKING:
    from streamproc.commands.remote import Remote

_URL: Final = "http://127.0.0.1:8080"
_PANEL: Final = "The service"


def _path(flag: str, help: str) -> Any:
    variable = f"STREAMPROC_{flag.strip('-').replace('-', '_').upper()}"
    return typer.Option(flag, metavar="FILE", envvar=variable, help=help, rich_help_panel=_PANEL, show_default=False)


Name = Annotated[str, typer.Argument(metavar="NAME", help="A pipeline of the service.", show_default=False)]
PipelineFile = Annotated[Path, typer.Argument(metavar="FILE", help="A pipeline file.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")]

Url = Annotated[
    str, typer.Option("--url", metavar="URL", envvar="STREAMPROC_URL", help="Where it is.", rich_help_panel=_PANEL)
]
TokenFile = Annotated[
    Path | None, _path("--token-file", "Holds the token; the variable STREAMPROC_TOKEN may hold it, too.")
]
Ca = Annotated[Path | None, _path("--ca", "Trust the certificates of this CA.")]
Certificate = Annotated[Path | None, _path("--cert", "Our own certificate, for mTLS.")]
Key = Annotated[Path | None, _path("--key", "The certificate's key.")]
PlainHttp = Annotated[
    bool,
    typer.Option(
        "--plain-http",
        envvar="STREAMPROC_PLAIN_HTTP",
        help="Show the token over plain HTTP to another host: on a network that is trusted.",
        rich_help_panel=_PANEL,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a script.")]


@dataclass(frozen=True, slots=True)
class ServiceCall:
    """One call of a command: who calls, and how the service is reached."""

    session: Any  # commands.session.Session
    url: str
    token_file: Path | None
    ca: Path | None
    cert: Path | None
    key: Path | None
    plain_http: bool
    as_json: bool

    def remote(self) -> Remote:
        """For `commands.remote`."""
        from streamproc.commands.remote import Remote

        if self.key is not None and self.cert is None:
            raise typer.BadParameter("needs --cert too", param_hint="--key")
        token = os.environ.get("STREAMPROC_TOKEN") or None
        return Remote(self.url, token, self.token_file, self.ca, self.cert, self.key, self.plain_http, self.as_json)


_REACHING: Final[dict[str, tuple[Any, Any]]] = {
    "url": (Url, _URL),
    "token_file": (TokenFile, None),
    "ca": (Ca, None),
    "cert": (Certificate, None),
    "key": (Key, None),
    "plain_http": (PlainHttp, False),
    "as_json": (Json, False),
}


def asks_service(command: Callable[..., int]) -> Callable[..., None]:
    """A command as typer wants it: its own parameters behind the call, then the options of `ServiceCall`; what it
    returns is the exit code."""
    hints = get_type_hints(command, include_extras=True)
    own = list(inspect.signature(command).parameters.values())[1:]

    def run(context: typer.Context, **given: Any) -> None:
        reaching = {name: given.pop(name) for name in _REACHING}
        raise typer.Exit(command(ServiceCall(context.obj, **reaching), **given))

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *(each.replace(kind=keyword, annotation=hints[each.name]) for each in own),
        *(
            inspect.Parameter(name, keyword, default=default, annotation=hint)
            for name, (hint, default) in _REACHING.items()
        ),
    ]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def add_service_commands(app: typer.Typer) -> None:
    """`plan`, `apply`, `list`, …"""
    for command in (plan, apply, status, stop, start, savepoint, rescale, why, errors, delete):
        app.command()(asks_service(command))
    app.command("list")(asks_service(list_pipelines))


def plan(call: ServiceCall, file: PipelineFile) -> int:
    """Show what `apply` would do, and what becomes of each state."""
    from streamproc.commands import remote

    return remote.plan_file(call.session, call.remote(), file)


def apply(
    call: ServiceCall,
    file: PipelineFile,
    yes: Yes = False,
    drop_state: Annotated[
        bool, typer.Option("--drop-state", help="State that cannot be taken over may be lost.")
    ] = False,
    no_wait: NoWait = False,
) -> int:
    """Create the pipeline of a file in the service, or upgrade it, from a savepoint."""
    from streamproc.commands import remote

    request = remote.ApplyRequest(yes=yes, drop_state=drop_state, wait=not no_wait)
    return remote.apply_file(call.session, call.remote(), file, request)


def list_pipelines(call: ServiceCall) -> int:
    """List the pipelines of the service."""
    from streamproc.commands import remote

    return remote.list_pipelines(call.session, call.remote())


def status(
    call: ServiceCall,
    name: Name,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.2, max=3600, metavar="SECONDS", help="How often `--watch` looks.")
    ] = 2.0,
) -> int:
    """Show how a pipeline does: rows, watermarks, backpressure, checkpoints, its ledger."""
    from streamproc.commands import remote

    return remote.show_status(call.session, call.remote(), name, watch=watch, interval_s=interval)


def stop(
    call: ServiceCall,
    name: Name,
    drain: Annotated[
        bool, typer.Option("--drain", help="End the input first: every window closes, all results are committed.")
    ] = False,
    no_wait: NoWait = False,
) -> int:
    """Stop a pipeline with a last checkpoint."""
    from streamproc.commands import remote

    return remote.stop(call.session, call.remote(), name, drain=drain, wait=not no_wait)


def start(
    call: ServiceCall,
    name: Name,
    restore_from: Annotated[
        int | None,
        typer.Option("--from", min=1, metavar="ID", help="A checkpoint or savepoint, in place of the newest."),
    ] = None,
    no_wait: NoWait = False,
) -> int:
    """Start a stopped pipeline again, from its newest checkpoint."""
    from streamproc.commands import remote

    return remote.start(call.session, call.remote(), name, restore_from, wait=not no_wait)


def savepoint(
    call: ServiceCall,
    name: Name,
    delete: Annotated[
        int | None, typer.Option("--delete", metavar="ID", min=1, help="Take none; keep this one no longer.")
    ] = None,
) -> int:
    """Take a checkpoint that is kept until somebody deletes it; the pipeline goes on."""
    from streamproc.commands import remote

    if delete is not None:
        return remote.delete_savepoint(call.session, call.remote(), name, delete)
    return remote.take_savepoint(call.session, call.remote(), name)


def rescale(
    call: ServiceCall,
    name: Name,
    parallelism: Annotated[int, typer.Argument(metavar="N", min=1, help="Subtasks of each node.", show_default=False)],
    no_wait: NoWait = False,
) -> int:
    """Go on with N subtasks of every node that does not say otherwise, from a savepoint."""
    from streamproc.commands import remote

    return remote.rescale(call.session, call.remote(), name, parallelism, wait=not no_wait)


def why(
    call: ServiceCall,
    name: Name,
    step: Annotated[str, typer.Argument(metavar="STEP", help="A source, step or sink.", show_default=False)],
) -> int:
    """Say why nothing comes out of a step."""
    from streamproc.commands import remote

    return remote.show_why(call.session, call.remote(), name, step)


def errors(call: ServiceCall, name: Name) -> int:
    """Show the last bad records and failures."""
    from streamproc.commands import remote

    return remote.show_errors(call.session, call.remote(), name)


def delete(call: ServiceCall, name: Name, yes: Yes = False) -> int:
    """Stop a pipeline and forget it; its checkpoints stay."""
    from streamproc.commands import remote

    return remote.delete(call.session, call.remote(), name, yes=yes)
