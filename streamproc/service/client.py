"""Asks a running service over its REST, and gives its views; every refusal is a Failure that says who acts.

A token is sent in the clear only over the loopback: over plain HTTP to another machine it is refused here.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from state.failure import Failure
from streamproc.pipeline.faults import Fault
from streamproc.service.views import (
    CheckpointView,
    ErrorList,
    GraphView,
    PipelineDetail,
    PipelineList,
    PlanView,
    WhyView,
)

DEFAULT_URL: Final = "http://127.0.0.1:8080"
_CONNECT_S: Final = 5.0
_READ_S: Final = 30.0
_CHANGE_S: Final = 660.0  # a change waits for a savepoint, which may take as long as a checkpoint's timeout

ViewT = TypeVar("ViewT", bound=BaseModel)


class WrongAccess(Failure):
    """What was given to reach the service cannot be used: its URL, the token, a certificate."""

    acts = "user"


class WrongName(Failure):
    """What was given as a name is none: in a path it would mean something else."""

    acts = "user"


class Unreachable(Failure):
    """Nobody answers there."""

    acts = "world"
    retry_helps = True


class NotTheService(Failure):
    """Something answers, and not as this version's service would."""

    acts = "world"


class ServiceFailed(Failure):
    """The service says that it, or something behind it, has failed."""

    acts = "world"
    retry_helps = True


class Refused(Failure):
    """The service refuses the request. `faults`: those of a pipeline file; `plan`: what it would do now."""

    acts = "user"

    def __init__(
        self, text: str, status: int, slug: str, *, faults: tuple[Fault, ...] = (), plan: PlanView | None = None
    ) -> None:
        super().__init__(text)
        self.status, self.slug, self.faults, self.plan = status, slug, faults, plan


@dataclass(frozen=True, slots=True)
class Access:
    """Where the service is, and how to be let in."""

    url: str = DEFAULT_URL
    token: str | None = None
    ca: Path | None = None  # whose certificates to trust, in place of the system's
    certificate: Path | None = None  # our own, for mTLS
    key: Path | None = None
    plain_http: bool = False  # whether the token may be shown over it to another host

    def __repr__(self) -> str:
        return f"Access({self.url!r})"


class ServiceClient:
    """One connection to a service; closes on leaving. Every method raises WrongAccess, WrongName, Unreachable,
    Refused, ServiceFailed or NotTheService."""

    def __init__(self, access: Access) -> None:
        self._url = _checked_url(access)
        headers = {"Accept": "application/json", "User-Agent": "streamproc"}
        if access.token is not None:
            headers["Authorization"] = f"Bearer {access.token}"
        self._http = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S),
            verify=_tls(access) if self._url.startswith("https:") else True,
            trust_env=False,  # a proxy of the environment is no place for a token
        )

    def __enter__(self) -> ServiceClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def list(self) -> PipelineList:
        """All pipelines, by name."""
        return self._ask(PipelineList, "GET", "")

    def get(self, name: str) -> PipelineDetail:
        """One."""
        return self._ask(PipelineDetail, "GET", _part(name))

    def plan(self, name: str, yaml: bytes) -> PlanView:
        """What putting this file would do."""
        return self._ask(PlanView, "POST", f"{_part(name)}/plan", yaml=yaml)

    def put(self, name: str, yaml: bytes, *, plan: str, drop_state: bool) -> PipelineDetail:
        """Do exactly this plan."""
        query = {"plan": plan, "drop_state": str(drop_state).lower()}
        return self._ask(PipelineDetail, "PUT", _part(name), yaml=yaml, query=query)

    def delete(self, name: str) -> None:
        """Stop and forget; checkpoints stay."""
        self._answer("DELETE", _part(name), None, {}, None)

    def stop(self, name: str, *, drain: bool) -> PipelineDetail:
        """Stop with a last checkpoint."""
        return self._ask(PipelineDetail, "POST", f"{_part(name)}/stop", json={"drain": drain})

    def start(self, name: str, restore_from: int | None) -> PipelineDetail:
        """Go on from the newest checkpoint, or from this one."""
        return self._ask(PipelineDetail, "POST", f"{_part(name)}/start", json={"from": restore_from})

    def savepoint(self, name: str) -> CheckpointView:
        """Take one; the pipeline goes on."""
        return self._ask(CheckpointView, "POST", f"{_part(name)}/savepoints", json={})

    def delete_savepoint(self, name: str, savepoint: int) -> None:
        """It is a checkpoint like others from now on."""
        self._answer("DELETE", f"{_part(name)}/savepoints/{savepoint}", None, {}, None)

    def rescale(self, name: str, parallelism: int) -> PipelineDetail:
        """Go on with so many subtasks."""
        return self._ask(PipelineDetail, "POST", f"{_part(name)}/rescale", json={"parallelism": parallelism})

    def graph(self, name: str) -> GraphView:
        """The job graph, live."""
        return self._ask(GraphView, "GET", f"{_part(name)}/graph")

    def errors(self, name: str) -> ErrorList:
        """The last bad records and failures."""
        return self._ask(ErrorList, "GET", f"{_part(name)}/errors")

    def why(self, name: str, step: str) -> WhyView:
        """Why nothing comes out of a node."""
        return self._ask(WhyView, "GET", f"{_part(name)}/why{_part(step)}")

    def _ask(
        self,
        view: type[ViewT],
        method: str,
        path: str,
        *,
        yaml: bytes | None = None,
        query: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
    ) -> ViewT:
        response = self._answer(method, path, yaml, query or {}, json)
        try:
            return view.model_validate_json(response.content)
        except ValidationError as error:
            raise NotTheService(
                f"what answers at {self._url} is not a service of this version of streamproc "
                f"({error.error_count()} things in its answer are unknown)"
            ) from error

    def _answer(
        self,
        method: str,
        path: str,
        yaml: bytes | None,
        query: Mapping[str, str],
        json: Mapping[str, Any] | None,
    ) -> httpx.Response:
        timeout = httpx.Timeout(_READ_S if method == "GET" else _CHANGE_S, connect=_CONNECT_S)
        headers = {} if yaml is None else {"Content-Type": "application/yaml"}
        try:
            response = self._http.request(
                method,
                f"{self._url}/v1/pipelines{path}",
                params=query,
                content=yaml,
                json=json,
                headers=headers,
                timeout=timeout,
            )
        except httpx.ReadTimeout as error:
            raise Unreachable(f"the service at {self._url} has not answered for {timeout.read:.0f} s") from error
        except httpx.HTTPError as error:
            raise Unreachable(self._unreachable_text(error)) from error
        if not response.is_success:
            raise self._refusal(response)
        return response

    def _unreachable_text(self, error: httpx.HTTPError) -> str:
        reason = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            return f"the service at {self._url} shows a certificate that is not trusted; --ca names its CA ({reason})"
        if "WRONG_VERSION_NUMBER" in reason:
            return f"what listens at {self._url} does not speak TLS: is it {self._url.replace('https', 'http', 1)}?"
        if self._url.startswith("https:") and isinstance(error, httpx.ReadError | httpx.RemoteProtocolError):
            return (
                f"the service at {self._url} has closed the connection ({reason}): it may want a certificate that it "
                "trusts and that has not expired; --cert and --key name ours"
            )
        return (
            f"no service answers at {self._url} ({reason}). `streamproc serve` starts one; --url or STREAMPROC_URL "
            "says where another is"
        )

    def _refusal(self, response: httpx.Response) -> Failure:
        """What a problem says."""
        try:
            problem = response.json()
            slug = str(problem["type"]).rpartition(":")[2]
            text = str(problem.get("detail") or problem["title"])
        except (ValueError, KeyError, TypeError, AttributeError):
            status = response.status_code
            return NotTheService(f"what answers at {self._url} is not a streamproc service (HTTP {status})")
        if response.status_code == 401:
            text += "; the environment variable STREAMPROC_TOKEN or --token-file gives one"
        if response.status_code >= 500:
            where = f" ({problem['instance']})" if problem.get("instance") else ""
            return ServiceFailed(f"the service at {self._url} failed: {text}{where}")
        return Refused(text, response.status_code, slug, faults=_faults(problem, slug), plan=_plan(problem))


def _faults(problem: Mapping[str, Any], slug: str) -> tuple[Fault, ...]:
    if slug != "faulty-pipeline":
        return ()
    try:
        return tuple(Fault(**fault) for fault in problem["errors"])
    except (KeyError, TypeError):
        return ()


def _plan(problem: Mapping[str, Any]) -> PlanView | None:
    try:
        return PlanView.model_validate(problem["plan"]) if "plan" in problem else None
    except ValidationError:
        return None


def _part(name: str) -> str:
    """A name as the part of a path. Raises WrongName: a server takes `a%2Fb` for two parts."""
    if not name or "/" in name or name in (".", ".."):
        raise WrongName(f"{name!r} is no name")
    return f"/{quote(name, safe='')}"


def _checked_url(access: Access) -> str:
    try:
        url = httpx.URL(access.url)
    except (httpx.InvalidURL, ValueError) as error:
        raise WrongAccess(f"--url {access.url!r} is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise WrongAccess(f"--url {access.url!r} is not a URL like {DEFAULT_URL}")
    if url.userinfo:
        raise WrongAccess("--url must not hold a password: the token goes into STREAMPROC_TOKEN or --token-file")
    if access.token is not None and url.scheme == "http" and not (_is_loopback(url.host) or access.plain_http):
        raise WrongAccess(
            f"a token over plain HTTP could be read on its way to {url.host}: use https://, or, on a network that is "
            "trusted, --plain-http"
        )
    return access.url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if access.ca is None else str(access.ca))
    except (OSError, ssl.SSLError) as error:
        raise WrongAccess(f"--ca {access.ca}: cannot be used ({_reason(error)})") from error
    if access.certificate is not None:
        try:
            context.load_cert_chain(access.certificate, access.key)
        except (OSError, ssl.SSLError) as error:
            if access.key is None:
                raise WrongAccess(f"--cert {access.certificate}: holds no key; --key names it") from error
            raise WrongAccess(f"--cert {access.certificate}: cannot be used ({_reason(error)})") from error
    return context


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
