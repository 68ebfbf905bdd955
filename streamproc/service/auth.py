"""Who asks: the holder of a token, of a browser session, of a client certificate, or anybody on an open loopback.

Tokens are compared as SHA-256 digests, each with every known one, in constant time. Sessions live in memory: a
restarted service asks for the token again.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from starlette.requests import HTTPConnection

from state.failure import Failure
from streamproc.service.config import Role, ServiceConfig, TokenConfig
from streamproc.service.problem import Refusal
from streamproc.service.throttle import Throttle

SESSION_COOKIE: Final = "streamproc_session"
SESSION_SECONDS: Final = 12 * 3600
SESSIONS_MAX: Final = 1000
CSRF_FIELD: Final = "csrf"  # in forms
CSRF_HEADER: Final = "x-csrf-token"
CERTIFICATE_KEY: Final = "client_certificate"  # in a connection's state: the common name, verified
DIGEST_PREFIX: Final = "sha256:"

_BEARER: Final = "bearer "


class Unsecured(Failure):
    """The service would listen where anybody can reach it, without asking who they are."""

    acts = "user"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `session` is the digest of the session's id."""

    name: str
    role: Role
    via: Literal["open", "token", "session", "certificate"]
    session: str = ""

    @property
    def ambient(self) -> bool:
        """A browser proves it without being asked, so that a page from elsewhere could use it."""
        return self.via != "token"


def caller_of(request: HTTPConnection) -> Caller:
    """Who asks. Of an answer to anyone, who may not have said: refused with 401."""
    caller = request.scope["state"].get("caller")
    if not isinstance(caller, Caller):
        raise unauthorized("say who you are: a token is needed")
    return caller


def unauthorized(detail: str) -> Refusal:
    """401."""
    return Refusal(401, "unauthorized", "Not authenticated", detail, {"WWW-Authenticate": 'Bearer realm="streamproc"'})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def asks_who(config: ServiceConfig) -> bool:
    """Whether callers must prove who they are."""
    return bool(config.tokens) or (config.tls is not None and config.tls.clients is not None)


def check_exposure(config: ServiceConfig) -> None:
    """Raises Unsecured where the API would listen beyond the loopback and ask nobody who they are."""
    if not is_loopback(config.listen.host) and not asks_who(config):
        raise Unsecured(
            f"listening on {config.listen.host} needs tokens, or client certificates (tls.clients):"
            " without them only the loopback (127.0.0.1) may be listened on"
        )


def digest_of(token: str) -> bytes:
    """What is compared."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class Tokens:
    """Who a token belongs to."""

    def __init__(self, tokens: Sequence[TokenConfig]) -> None:
        self._known = [(_configured_digest(one.token), Caller(one.name, one.role, "token")) for one in tokens]

    def __bool__(self) -> bool:
        return bool(self._known)

    def caller(self, digest: bytes) -> Caller | None:
        """The holder. Every known token is compared, whichever fits."""
        found: Caller | None = None
        for known, caller in self._known:
            if hmac.compare_digest(known, digest):
                found = found or caller
        return found


def _configured_digest(token: str) -> bytes:
    if token.startswith(DIGEST_PREFIX):
        return bytes.fromhex(token.removeprefix(DIGEST_PREFIX))
    return digest_of(token)


class Sessions:
    """Browser sessions: a random id in a cookie; here only its digest, who it is and until when.
    `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._sessions: OrderedDict[str, tuple[Caller, float]] = OrderedDict()

    def begin(self, holder: Caller) -> str:
        """A new session of a token's holder; gives its id. Of too many the oldest ends."""
        session_id = secrets.token_urlsafe(32)
        session = _session_digest(session_id)
        self._sessions[session] = (Caller(holder.name, holder.role, "session", session), self._clock())
        if len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return session_id

    def caller(self, session_id: str) -> Caller | None:
        """Whose session it is; None for one that has ended or never was."""
        session = _session_digest(session_id)
        caller, began = self._sessions.get(session, (None, 0.0))
        if caller is not None and self._clock() - began >= SESSION_SECONDS:
            del self._sessions[session]
            return None
        return caller

    def end(self, caller: Caller) -> None:
        """Log out."""
        self._sessions.pop(caller.session, None)

    def csrf_token(self, caller: Caller) -> str:
        """What a form of ours holds, and a page from elsewhere cannot know."""
        text = f"{caller.via}\n{caller.name}\n{caller.session}"
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    def fits(self, caller: Caller, token: str) -> bool:
        """Whether `token` is the caller's `csrf_token`."""
        return hmac.compare_digest(self.csrf_token(caller).encode(), token.encode("utf-8", "replace"))


def _session_digest(session_id: str) -> str:
    return hashlib.sha256(session_id.encode("utf-8", "replace")).hexdigest()


def csrf_token(request: HTTPConnection) -> str:
    """For the field `csrf` of a form (or the header X-CSRF-Token of a script's request)."""
    sessions: Sessions = request.app.state.sessions
    return sessions.csrf_token(caller_of(request))


class Authenticator:
    """Finds out who asks; guesses are throttled."""

    def __init__(self, config: ServiceConfig, sessions: Sessions, throttle: Throttle | None = None) -> None:
        clients = config.tls.clients if config.tls is not None else None
        self._open = not asks_who(config)
        self._admins = frozenset(clients.admins) if clients is not None else frozenset[str]()
        self._tokens = Tokens(config.tokens)
        self._sessions = sessions
        self._throttle = throttle or Throttle()

    @property
    def takes_tokens(self) -> bool:
        """Whether logging in makes sense."""
        return bool(self._tokens)

    def caller(self, request: HTTPConnection) -> Caller | None:
        """Who asks; None: they do not say. A token that is shown counts, whatever else is. Raises Refusal (401,
        429) for a token or session that is nobody's."""
        if self._open:
            return Caller("anyone", "admin", "open")
        shown = request.headers.get("authorization")
        if shown is not None:
            if not shown.lower().startswith(_BEARER):
                raise unauthorized("the Authorization header must be: Bearer, a space, and a token")
            return self.holder(shown[len(_BEARER) :].strip(), request)
        session_id = request.cookies.get(SESSION_COOKIE)
        if session_id and (caller := self._sessions.caller(session_id)) is not None:
            return caller
        name = request.scope["state"].get(CERTIFICATE_KEY)
        if name is not None:
            return Caller(name, "admin" if name in self._admins else "read", "certificate")
        return None

    def holder(self, token: str, request: HTTPConnection) -> Caller:
        """The token's. Raises Refusal: 401 for nobody's, 429 after many different ones."""
        address = request.client.host if request.client is not None else ""
        if (seconds := self._throttle.wait_seconds(address)) > 0:
            title, detail = "Too many wrong tokens", "too many wrong tokens came from this address"
            raise Refusal(429, "too-many-attempts", title, detail, {"Retry-After": str(int(seconds) + 1)})
        digest = digest_of(token)
        caller = self._tokens.caller(digest)
        if caller is None:
            self._throttle.failed(address, digest)
            raise unauthorized("the token is not known")
        return caller
