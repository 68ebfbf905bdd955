"""The command line: what may be said, and which command does it. `--help` loads nothing else of ours.

Exit codes: 0 done, 1 the pipeline failed, 2 the input is wrong.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from streamproc.cli_service import add_service_commands
from streamproc.installation import Shadowed, check_installation
from streamproc.process_settings import set_threads


class RunnerName(StrEnum):
    """Where a pipeline may run."""

    embedded = "embedded"
    processes = "processes"
    ray = "ray"


PipelineFile = Annotated[Path, typer.Argument(metavar="FILE", help="A pipeline file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a script.")]
StoreUrl = Annotated[
    str, typer.Argument(metavar="URL", help="A checkpoint store, or one pipeline's folder in it.", show_default=False)
]

app = typer.Typer(
    name="streamproc",
    help="Stream processing in Python: YAML pipelines, event-time windows, exactly-once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
checkpoints_app = typer.Typer(help="What is in a checkpoint store.", no_args_is_help=True)
app.add_typer(checkpoints_app, name="checkpoints")


def main() -> None:
    """The program. Never shows a traceback unless asked to."""
    set_threads()
    try:
        check_installation()
    except Shadowed as error:
        print(f"streamproc: {error}", file=sys.stderr)
        sys.exit(2)
    from streamproc.commands.session import DEBUG_VARIABLE, Session

    session = Session(debug=os.environ.get(DEBUG_VARIABLE, "") not in ("", "0"))
    try:
        app(obj=session)
    except Exception as error:
        sys.exit(session.report(error))


def _version(wanted: bool) -> None:
    if wanted:
        from streamproc import __version__

        print(f"streamproc {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Log everything and show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""
    context.obj.debug = context.obj.debug or debug


@app.command()
def validate(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Pipeline files.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Find all errors of pipeline files."""
    from streamproc.commands.check import validate_files

    raise typer.Exit(validate_files(context.obj, files, as_json=as_json))


@app.command()
def explain(file: PipelineFile, as_json: Json = False) -> None:
    """Show the plan: steps, chains, exchanges, state, parallelism."""
    from streamproc.commands.check import explain_file

    raise typer.Exit(explain_file(file, as_json=as_json))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the pipeline file, for editors."""
    from streamproc.commands.check import print_schema

    raise typer.Exit(print_schema())


@app.command()
def run(
    context: typer.Context,
    file: PipelineFile,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="Stop, after a last checkpoint, once no source has anything new.")
    ] = False,
    checkpoints: Annotated[
        str | None,
        typer.Option("--checkpoints", metavar="URL", help="Where checkpoints are kept, in place of the file's."),
    ] = None,
    restore_from: Annotated[
        str,
        typer.Option("--from", metavar="latest|ID", help="The checkpoint to go on from."),
    ] = "latest",
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", min=0, max=65535, help="Serve metrics and health here; 0 picks a free port."),
    ] = None,
    metrics_host: Annotated[
        str | None,
        typer.Option(
            "--metrics-host",
            metavar="ADDRESS",
            help="Serve them on this address and not on the loopback; nothing there asks for a token.",
        ),
    ] = None,
    runner: Annotated[RunnerName, typer.Option("--runner", help="Where the pipeline runs.")] = RunnerName.embedded,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="How many processes, of a runner that has several."),
    ] = None,
    as_json: Json = False,
    log_level: Annotated[
        str | None, typer.Option("--log-level", metavar="debug|info|warning|error", help="How much to log.")
    ] = None,
) -> None:
    """Run one pipeline here. Ctrl-C takes a last checkpoint, then stops; run again, it goes on from there."""
    if runner is not RunnerName.embedded:
        raise typer.BadParameter(f"{runner.value} is not available yet; embedded is", param_hint="--runner")
    if workers is not None:
        raise typer.BadParameter(f"the runner {runner.value} has one process, this one", param_hint="--workers")
    if restore_from != "latest" and not restore_from.isdecimal():
        raise typer.BadParameter("give latest or a checkpoint's number", param_hint="--from")
    if metrics_host is not None and metrics_port is None:
        raise typer.BadParameter("needs --metrics-port too", param_hint="--metrics-host")
    if log_level is not None and log_level not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter("give debug, info, warning or error", param_hint="--log-level")
    from streamproc.commands.run import RunRequest, run_file
    from streamproc.observability.http import LOOPBACK

    request = RunRequest(
        until_idle=until_idle,
        checkpoints=checkpoints,
        restore_from=restore_from,
        metrics_port=metrics_port,
        metrics_host=metrics_host or LOOPBACK,
        as_json=as_json,
        log_level=log_level,
    )
    raise typer.Exit(run_file(context.obj, file, request))


@app.command()
def serve(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The service's configuration.", show_default=False)
    ] = None,
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="ADDRESS", help="Listen here; beyond the loopback it needs tokens or mTLS."),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="The API's and the page's port; 0 picks a free one.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=0, max=65535, help="The port of metrics and health.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--directory", help="Where it keeps what is wanted, and local state.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", metavar="debug|info|warning|error", help="How much to log.")
    ] = None,
) -> None:
    """Run the service: many pipelines, a REST API and a page. Started again, it brings everything back."""
    if log_level is not None and log_level not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter("give debug, info, warning or error", param_hint="--log-level")
    from streamproc.commands.serve import ServeRequest, run_service

    request = ServeRequest(
        config=config, host=host, port=port, metrics_port=metrics_port, directory=directory, log_level=log_level
    )
    raise typer.Exit(run_service(context.obj, request))


@app.command("test")
def run_tests(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Pipeline files.", show_default=False)],
    only: Annotated[str, typer.Option("-k", metavar="TEXT", help="Only tests with this in their name.")] = "",
    as_json: Json = False,
) -> None:
    """Run the tests in pipeline files."""
    from streamproc.commands.test import test_files

    raise typer.Exit(test_files(context.obj, files, only=only, as_json=as_json))


@app.command()
def demo(
    context: typer.Context,
    directory: Annotated[
        Path, typer.Option("--directory", help="Where its files go; cleared when the demo made it.")
    ] = Path("demo-output"),
) -> None:
    """Run a bundled pipeline on bundled real data: the delays of a year of flights."""
    from streamproc.commands.demo import run_demo

    raise typer.Exit(run_demo(context.obj, directory))


@checkpoints_app.command("list")
def list_checkpoints(context: typer.Context, url: StoreUrl, as_json: Json = False) -> None:
    """List the checkpoints, newest last."""
    from streamproc.commands import checkpoints as command

    raise typer.Exit(command.list_all(context.obj, url, as_json=as_json))


@checkpoints_app.command("show")
def show_checkpoint(
    context: typer.Context,
    url: StoreUrl,
    checkpoint: Annotated[str, typer.Argument(metavar="[latest|ID]", help="Which one.")] = "latest",
    as_json: Json = False,
) -> None:
    """Show what one checkpoint holds: positions, state and what its sinks prepared."""
    from streamproc.commands import checkpoints as command

    raise typer.Exit(command.show(context.obj, url, checkpoint, as_json=as_json))


@checkpoints_app.command("verify")
def verify_checkpoints(context: typer.Context, url: StoreUrl, as_json: Json = False) -> None:
    """Read every file of every checkpoint and compare it with its checksum; exit 1 if one is bad."""
    from streamproc.commands import checkpoints as command

    raise typer.Exit(command.verify_all(context.obj, url, as_json=as_json))


add_service_commands(app)
