"""`plan`, `apply`, `list`, `status`, `stop`, `start`, `savepoint`, `rescale`, `why`, `errors`, `delete`: asks the
service, shows what it says.

What is applied is the plan that was shown, and no other. State goes only where `--drop-state` says so.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from state.failure import Failure
from streamproc.commands import remote_views as views
from streamproc.commands.session import DONE, FAILED, WRONG_INPUT, Session, print_json, table_console
from streamproc.pipeline.document import decode_document
from streamproc.pipeline.faults import FaultLog, InvalidPipeline
from streamproc.pipeline.references import References
from streamproc.service.client import Access, Refused, ServiceClient, ServiceFailed, Unreachable, WrongAccess
from streamproc.service.views import GraphView, PipelineDetail

_POLL_S: Final = 0.25
_FILE_BYTES_MAX: Final = 16_000_000  # the service has a bound of its own, below this
_TOKEN_BYTES_MAX: Final = 4096
_ENDED: Final = ("finished", "failed", "stopped", "drained")


class UnreadableFile(Failure):
    """The pipeline file cannot be read, or does not say which pipeline it is."""

    acts = "user"


@dataclass(frozen=True, slots=True)
class Remote:
    """The options that all these commands have."""

    url: str
    token: str | None = None  # of the environment
    token_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    plain_http: bool = False
    as_json: bool = False

    def client(self, session: Session) -> ServiceClient:
        """Connected once something is asked. Raises WrongAccess."""
        token = _checked_token("STREAMPROC_TOKEN", self.token) if self.token else None
        if self.token_file is not None:
            token = _read_token(self.token_file)
        if token is not None:
            session.redaction.add((token,))
        return ServiceClient(Access(self.url, token, self.ca, self.certificate, self.key, self.plain_http))


@dataclass(frozen=True, slots=True)
class ApplyRequest:
    """The options of `apply`."""

    yes: bool = False
    drop_state: bool = False
    wait: bool = True


def plan_file(session: Session, remote: Remote, file: Path) -> int:
    """Show what `apply` would do."""
    name, yaml = _read(file)
    with remote.client(session) as client, _faults_of(file):
        plan = client.plan(name, yaml)
    _show(remote, plan, views.plan_view(plan))
    return DONE


def apply_file(session: Session, remote: Remote, file: Path, request: ApplyRequest) -> int:
    """Plan, show, ask where somebody can be asked, do just that, and wait until it runs."""
    name, yaml = _read(file)
    with remote.client(session) as client, _faults_of(file):
        plan = client.plan(name, yaml)
        if not remote.as_json:
            table_console().print(views.plan_view(plan))
        if plan.drops_state and not request.drop_state:
            lost = ", ".join(views.lost_names(plan))
            session.say(f"streamproc: not applied: the state of {lost} would be lost; --drop-state allows that")
            return WRONG_INPUT
        if plan.action != "nothing" and not request.yes and not _agreed(remote):
            session.say("streamproc: not applied")
            return WRONG_INPUT
        try:
            detail = client.put(name, yaml, plan=plan.id, drop_state=request.drop_state)
        except Refused as refused:
            if refused.slug != "plan-outdated" or refused.plan is None:
                raise
            if not remote.as_json:
                table_console().print(views.plan_view(refused.plan))
            session.say("streamproc: not applied: the pipeline has changed meanwhile, and this is what would be done")
            return WRONG_INPUT
        return _outcome(session, remote, client, detail, wait=request.wait)


def list_pipelines(session: Session, remote: Remote) -> int:
    """A line a pipeline."""
    with remote.client(session) as client:
        found = client.list()
    _show(remote, found, views.list_view(found.pipelines))
    return DONE


def show_status(session: Session, remote: Remote, name: str, *, watch: bool, interval_s: float) -> int:
    """One pipeline, once or again and again."""
    with remote.client(session) as client:
        detail = client.get(name)
        if not watch:
            graph = None if remote.as_json else _graph(client, name)
            _show(remote, detail, views.status_view(detail, graph))
            return DONE
        try:
            _watch(session, remote, client, name, interval_s)
        except KeyboardInterrupt:
            return DONE
    return DONE


def stop(session: Session, remote: Remote, name: str, *, drain: bool, wait: bool) -> int:
    """Stop with a last checkpoint; with `drain` every result is committed first."""
    with remote.client(session) as client:
        detail = client.stop(name, drain=drain)
        if wait:
            detail = _wait(session, client, detail, lambda now: now.state in _ENDED)
    return _told(session, remote, detail)


def start(session: Session, remote: Remote, name: str, restore_from: int | None, *, wait: bool) -> int:
    """Go on."""
    with remote.client(session) as client:
        return _outcome(session, remote, client, client.start(name, restore_from), wait=wait)


def rescale(session: Session, remote: Remote, name: str, parallelism: int, *, wait: bool) -> int:
    """Go on with another parallelism."""
    with remote.client(session) as client:
        return _outcome(session, remote, client, client.rescale(name, parallelism), wait=wait)


def take_savepoint(session: Session, remote: Remote, name: str) -> int:
    """Take a savepoint, and say its number."""
    with remote.client(session) as client:
        taken = client.savepoint(name)
    _show(remote, taken, Text(views.checkpoint_line(taken)))
    return DONE


def delete_savepoint(session: Session, remote: Remote, name: str, savepoint: int) -> int:
    """Keep a savepoint no longer."""
    with remote.client(session) as client:
        client.delete_savepoint(name, savepoint)
    if remote.as_json:
        print_json({"deleted": savepoint})
    else:
        session.say(f"streamproc: savepoint {savepoint} of {name} is kept no longer: it goes when it is old")
    return DONE


def delete(session: Session, remote: Remote, name: str, *, yes: bool) -> int:
    """Stop and forget."""
    with remote.client(session) as client:
        client.get(name)
        if not yes and not _agreed(remote, f"Stop {name} and forget it? Its checkpoints stay. [y/N] "):
            session.say("streamproc: not deleted")
            return WRONG_INPUT
        client.delete(name)
    if remote.as_json:
        print_json({"deleted": name})
    else:
        session.say(f"streamproc: {name} is deleted; its checkpoints are still there")
    return DONE


def show_errors(session: Session, remote: Remote, name: str) -> int:
    """The last bad records and failures."""
    with remote.client(session) as client:
        found = client.errors(name)
    _show(remote, found, views.errors_view(found))
    return DONE


def show_why(session: Session, remote: Remote, name: str, step: str) -> int:
    """Why nothing comes out of a node."""
    with remote.client(session) as client:
        found = client.why(name, step)
    _show(remote, found, views.why_view(found))
    return DONE


def _read(file: Path) -> tuple[str, bytes]:
    """The pipeline's name and the file as it is: what it means is the service's to say. Raises UnreadableFile, and
    InvalidPipeline for what is no YAML."""
    try:
        with file.open("rb") as opened:
            yaml = opened.read(_FILE_BYTES_MAX)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a file name"
        raise UnreadableFile(f"{file}: cannot be read: {reason.lower()}") from error
    document = decode_document(yaml, file=str(file), references=References({}, file.parent))
    name = document.value.get("pipeline") if isinstance(document.value, dict) else None
    if isinstance(name, str) and name:
        return name, yaml
    if document.value is None and document.problems:
        raise InvalidPipeline(FaultLog(document).faults())
    raise UnreadableFile(f"{file}: 'pipeline' is missing: it is the pipeline's name")


def _read_token(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            token = opened.read(_TOKEN_BYTES_MAX).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a file name"
        raise WrongAccess(f"--token-file {file}: cannot be read: {reason.lower()}") from error
    return _checked_token(f"--token-file {file}", token)


def _checked_token(place: str, text: str) -> str:
    """The token that `text` holds, with white space around it. Raises WrongAccess where a header cannot carry it."""
    token = text.strip()
    if not token or not all("!" <= character <= "~" for character in token):
        raise WrongAccess(f"{place} holds no token: one is of printable ASCII characters, without white space")
    return token


@contextmanager
def _faults_of(file: Path) -> Iterator[None]:
    """What the service finds wrong with the file is told as `validate` tells it, under the file's name here."""
    try:
        yield
    except Refused as refused:
        if not refused.faults:
            raise
        raise InvalidPipeline([replace(fault, file=str(file)) for fault in refused.faults]) from refused


def _agreed(remote: Remote, question: str = "Apply this? [y/N] ") -> bool:
    """Whether whoever sits there wants it; nobody to ask agrees."""
    if remote.as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    try:
        return input(question).strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        print()
        return False


def _outcome(session: Session, remote: Remote, client: ServiceClient, detail: PipelineDetail, *, wait: bool) -> int:
    """Wait until the pipeline runs, or has ended; gives the exit code."""
    if wait and detail.wanted == "running":
        detail = _wait(session, client, detail, lambda now: now.state == "running" or now.state in _ENDED)
    return _told(session, remote, detail)


def _wait(
    session: Session, client: ServiceClient, detail: PipelineDetail, there: Callable[[PipelineDetail], bool]
) -> PipelineDetail:
    """Ask until it is there, telling each step on the way. Ctrl-C ends only the waiting."""
    told, hinted = "", False
    try:
        while not there(detail):
            now = f"{detail.name} is {detail.state}" + (f": {detail.message}" if detail.message else "")
            if now != told:
                session.say(now)
                if detail.message and not hinted:
                    session.say("streamproc: waiting for it; Ctrl-C ends only the waiting, --no-wait leaves it out")
                    hinted = True
                told = now
            time.sleep(_POLL_S)
            detail = client.get(detail.name)
    except KeyboardInterrupt:
        session.say("streamproc: not waiting any longer; the service goes on with it")
    return detail


def _told(session: Session, remote: Remote, detail: PipelineDetail) -> int:
    """Say how it stands; 1 where it has failed."""
    if remote.as_json:
        _print(detail)
    reason = detail.message or (detail.failures[0].message if detail.failures else "for a reason it did not give")
    if detail.state == "failed":
        session.say(f"streamproc: {detail.name} failed: {reason}")
        return FAILED
    if not remote.as_json:
        checkpoint = "" if detail.checkpoint is None else f", checkpoint {detail.checkpoint}"
        session.say(f"streamproc: {detail.name} is {detail.state} (revision {detail.revision}{checkpoint})")
    return DONE


def _watch(session: Session, remote: Remote, client: ServiceClient, name: str, interval_s: float) -> None:
    """Until Ctrl-C. A service that is away for a while is waited for."""
    console = Console()
    if remote.as_json or not console.is_terminal:
        while True:
            try:
                detail = client.get(name)
                if remote.as_json:
                    _print(detail, indent=None)
                else:
                    print(views.status_line(detail, _graph(client, name)), flush=True)
            except (Unreachable, ServiceFailed) as failure:
                session.say(f"streamproc: {failure}")
            time.sleep(interval_s)
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            live.update(_looked(client, name), refresh=True)
            time.sleep(interval_s)


def _looked(client: ServiceClient, name: str) -> RenderableType:
    try:
        detail = client.get(name)
        return views.status_view(detail, _graph(client, name))
    except (Unreachable, ServiceFailed) as failure:
        return Text(f"{failure}; trying again", style="red")


def _graph(client: ServiceClient, name: str) -> GraphView | None:
    """None where there is none: what is wrong with the pipeline's file or record is in its status."""
    try:
        return client.graph(name)
    except Refused:
        return None


def _show(remote: Remote, view: BaseModel, shown: RenderableType) -> None:
    if remote.as_json:
        _print(view)
    else:
        table_console().print(shown)


def _print(view: BaseModel, indent: int | None = 2) -> None:
    print_json(view.model_dump(mode="json", by_alias=True), indent=indent)
