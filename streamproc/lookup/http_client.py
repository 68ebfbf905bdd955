"""One GET for each key: bounded in time, size, number and tries, and never to where it must not go.

The host stands in the pipeline file and is on the list of those allowed; redirects are refused; names are resolved
here, and an address of the local link (where clouds keep their credentials) is refused whatever name it has.
Values of keys are percent-encoded, and can be neither a path step (`..`) nor empty.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final
from urllib.parse import quote, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

from streamproc.functions.calls import Answered, CallLimits, Calls, CallTimedOut, NotAnswered

ANSWER_BYTES_MAX: Final = 1 << 20
PLACE: Final = re.compile(r"\{([^{}]*)\}")
_METADATA: Final = frozenset({ip_address("fd00:ec2::254"), ip_address("100.100.100.200")})
_TRY_AGAIN: Final = frozenset({429, *range(500, 600)})


class LookupRefused(Exception):
    """An answer that is none, or an address that must not be asked; asking again would not help."""


class LookupUnavailable(Exception):
    """The server says to come back later."""


@dataclass(frozen=True, slots=True)
class HttpEndpoint:
    """Where to ask, as configured. `places`: the columns in the URL, in the order of a key."""

    url: str
    headers: Mapping[str, str]
    limits: CallLimits

    @property
    def places(self) -> tuple[str, ...]:
        """Columns that the URL has places for, each once."""
        return tuple(dict.fromkeys(PLACE.findall(self.url)))

    def filled(self, key: Sequence[str]) -> str:
        """The URL for one key. Raises `LookupRefused`."""
        values = dict(zip(self.places, key, strict=True))
        for name, value in values.items():
            if value in ("", ".", ".."):
                raise LookupRefused(f"the value {value!r} of '{name}' cannot be part of a URL")
        return PLACE.sub(lambda match: quote(values[match[1]], safe=""), self.url)


def host_of(url: str) -> str:
    """The host of a URL, lower-case; empty where it has none."""
    return (urlsplit(url).hostname or "").lower()


def is_refused(address: str) -> bool:
    """Whether nothing may be asked at this address, whoever says so."""
    try:
        ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_link_local or ip in _METADATA


class _GuardedResolver(AbstractResolver):
    """Resolves names; the connection goes to exactly the addresses that were looked at."""

    def __init__(self) -> None:
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        for each in found:
            if is_refused(each["host"]):
                raise LookupRefused(f"{host} is at {each['host']}, which must not be asked")
        return found

    async def close(self) -> None:
        await self._resolver.close()


class HttpLookup:
    """The client of one subtask. All methods from one thread, on which no loop runs."""

    def __init__(self, endpoint: HttpEndpoint) -> None:
        self._endpoint = endpoint
        self._calls = Calls(endpoint.limits, may_pass=_may_pass)
        self._session: aiohttp.ClientSession | None = None

    def ask(self, keys: Sequence[Sequence[str]]) -> list[Answered[list[bytes]] | NotAnswered]:
        """The JSON objects of each answer, in the order of the keys; none where the server knows nothing."""
        if self._session is None:
            self._session = self._calls.run_alone(self._open())
        return self._calls.run(self._get, keys)

    def close(self) -> None:
        """Close connections and the loop."""
        if self._session is not None:
            self._calls.run_alone(self._session.close())
            self._session = None
        self._calls.close()

    async def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=self._endpoint.limits.in_flight, resolver=_GuardedResolver())
        return aiohttp.ClientSession(
            connector=connector,
            headers=dict(self._endpoint.headers),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # each call has its own
        )

    async def _get(self, key: Sequence[str]) -> list[bytes]:
        assert self._session is not None
        url = self._endpoint.filled(key)
        if is_refused(host_of(url)):
            raise LookupRefused(f"{host_of(url)} must not be asked")
        async with self._session.get(URL(url, encoded=True), allow_redirects=False) as response:
            if response.status == 404:
                return []
            if response.status in _TRY_AGAIN:
                raise LookupUnavailable(f"the server answers {response.status}")
            if 300 <= response.status < 400:
                raise LookupRefused(f"the server answers {response.status}: redirects are not followed")
            if response.status != 200:
                raise LookupRefused(f"the server answers {response.status}")
            return _objects(await _body(response))


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise LookupRefused(f"the answer is larger than {ANSWER_BYTES_MAX >> 20} MiB")
    return bytes(body)


def _objects(body: bytes) -> list[bytes]:
    """One object, or a list of them, each as a record of its own."""
    try:
        value: Any = json.loads(body)
    except ValueError as error:
        raise LookupRefused("the answer is not JSON") from error
    if isinstance(value, dict):
        return [body.replace(b"\n", b" ").replace(b"\r", b" ")]
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return [json.dumps(item, ensure_ascii=False).encode() for item in value]
    raise LookupRefused("the answer is neither a JSON object nor a list of them")


def _may_pass(error: Exception) -> bool:
    return isinstance(
        error, LookupUnavailable | CallTimedOut | aiohttp.ClientConnectionError | aiohttp.ClientPayloadError
    )
